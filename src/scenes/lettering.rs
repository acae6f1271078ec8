//! A stroke font of capitals and digits, 8 units high, and words short enough to be read at 64 pixels.
//!
//! A glyph is a list of strokes, a stroke a list of points `xy`, y down. A stroke that begins with `~` is a
//! quadratic B-spline through its first and last point; the others are its control points.

use super::Point;

/// Units from the top to the bottom of a glyph.
const HEIGHT: f64 = 8.0;
/// Units between two glyphs.
const GAP: f64 = 2.6;
/// Lines to a piece of a curve.
const PIECES: u32 = 6;

/// Words of the lettering.
pub(super) const WORDS: [&str; 32] = [
    "SKY", "RED", "BOX", "JAZZ", "MOON", "FISH", "WAVE", "QUIZ", "HELLO", "LUX", "PARK", "BLUE",
    "ECHO", "TOY", "VIVA", "YES", "GO", "ZEN", "KIWI", "DOT", "MAP", "ICE", "NOW", "FLY", "ARC",
    "HUG", "DAY", "UP", "ONE", "SUN", "OFF", "MIX",
];

/// Characters and their strokes.
pub(super) const GLYPHS: [(char, &str); 36] = [
    ('A', "08 30 68, 15 55"),
    ('B', "00 08, ~00 30 50 54 34 04, ~04 34 64 68 38 08"),
    ('C', "~62 60 00 08 68 66"),
    ('D', "00 08, ~00 20 60 68 28 08"),
    ('E', "50 00 08 58, 04 44"),
    ('F', "50 00 08, 04 44"),
    ('G', "~62 60 00 08 68 64, 64 44"),
    ('H', "00 08, 60 68, 04 64"),
    ('I', "00 08"),
    ('J', "~50 55 58 08 06"),
    ('K', "00 08, 60 05, 23 68"),
    ('L', "00 08 58"),
    ('M', "08 00 35 60 68"),
    ('N', "08 00 68 60"),
    ('O', "~30 00 08 68 60 30"),
    ('P', "00 08, ~00 30 60 65 35 05"),
    ('Q', "~30 00 08 68 60 30, 45 68"),
    ('R', "00 08, ~00 30 60 64 34 04, 34 68"),
    ('S', "~62 60 00 04 64 68 08 06"),
    ('T', "00 60, 30 38"),
    ('U', "~00 04 08 68 64 60"),
    ('V', "00 38 60"),
    ('W', "00 28 42 68 80"),
    ('X', "00 68, 60 08"),
    ('Y', "00 34 60, 34 38"),
    ('Z', "00 60 08 68"),
    ('0', "~20 00 08 48 40 20"),
    ('1', "02 20 28"),
    ('2', "~02 00 50 54 08, 08 58"),
    ('3', "~01 00 50 54 24, ~24 54 58 08 07"),
    ('4', "48 40 05 65"),
    ('5', "50 00 03, ~03 23 53 58 08 07"),
    ('6', "~40 02 08 58 53 13 05"),
    ('7', "00 50 18"),
    ('8', "~30 10 14 54 50 30, ~34 04 08 68 64 34"),
    ('9', "~18 56 50 00 05 45 53"),
];

/// Signs of headings, which no scene has.
const SIGNS: [(char, &str); 2] = [('+', "05 65, 32 38"), ('-', "05 55")];

/// The lines of a text about its middle, `height` high, or less where it would be wider than `width`; and the
/// height. Characters without a glyph leave a gap.
pub(super) fn lines(text: &str, height: f64, width: f64) -> (Vec<[Point; 2]>, f64) {
    let mut lines = Vec::new();
    let mut pen = 0.0;
    for c in text.chars() {
        let Some(strokes) = glyph(c) else {
            pen += 2.0 * GAP;
            continue;
        };
        let mut right: f64 = 0.0;
        for stroke in strokes.split(", ") {
            let points = points(stroke);
            right = points.iter().fold(right, |r, p| r.max(p[0]));
            let moved = points.iter().map(|[x, y]| [x + pen, *y]);
            let moved: Vec<Point> = moved.collect();
            lines.extend(moved.windows(2).map(|pair| [pair[0], pair[1]]));
        }
        pen += right + GAP;
    }
    let middle = [(pen - GAP) / 2.0, HEIGHT / 2.0];
    let scale = (height / HEIGHT).min(width / (pen - GAP).max(1.0));
    for point in lines.iter_mut().flatten() {
        *point = [
            (point[0] - middle[0]) * scale,
            (point[1] - middle[1]) * scale,
        ];
    }
    (lines, scale * HEIGHT)
}

fn glyph(c: char) -> Option<&'static str> {
    GLYPHS
        .iter()
        .chain(&SIGNS)
        .find(|(known, _)| *known == c)
        .map(|(_, strokes)| *strokes)
}

/// The points of a stroke, curves cut into lines.
fn points(stroke: &str) -> Vec<Point> {
    let corners: Vec<Point> = stroke
        .trim_start_matches('~')
        .split(' ')
        .map(|xy| {
            let mut digits = xy.bytes().map(|b| f64::from(b - b'0'));
            [digits.next().unwrap_or(0.0), digits.next().unwrap_or(0.0)]
        })
        .collect();
    if !stroke.starts_with('~') {
        return corners;
    }
    let last = corners.len() - 1;
    let mut points = vec![corners[0]];
    let mut from = corners[0];
    for i in 1..last {
        let control = corners[i];
        let to = if i + 1 == last {
            corners[last]
        } else {
            [0, 1].map(|k| (control[k] + corners[i + 1][k]) / 2.0)
        };
        for piece in 1..=PIECES {
            let t = f64::from(piece) / f64::from(PIECES);
            let (a, b, c) = ((1.0 - t) * (1.0 - t), 2.0 * t * (1.0 - t), t * t);
            points.push([0, 1].map(|k| a * from[k] + b * control[k] + c * to[k]));
        }
        from = to;
    }
    points
}
