//! Outlines as signed distances: negative inside, zero on the border, positive outside.

use super::Point;

/// A shape about the origin.
pub(super) enum Outline {
    /// Half axes.
    Ellipse([f64; 2]),
    /// Half sides, corners rounded by `radius`.
    Rectangle { half: [f64; 2], radius: f64 },
    /// Convex, given by its corners, then grown by `radius`, which rounds them.
    Polygon { corners: Vec<Point>, radius: f64 },
    /// All points at most `width / 2` from a circle.
    Ring { radius: f64, width: f64 },
    /// All points at most `width / 2` from one of these line segments.
    Strokes { lines: Vec<[Point; 2]>, width: f64 },
}

impl Outline {
    /// The signed distance of p; of an ellipse to first order in the distance.
    pub(super) fn distance(&self, p: Point) -> f64 {
        match self {
            Outline::Ellipse([a, b]) => {
                // f = |p / axes| is 1 on the border and (f - 1) / |grad f| the distance, near it
                let [x, y] = [p[0] / a, p[1] / b];
                let f = length([x, y]);
                let slope = length([x / a, y / b]);
                if slope == 0.0 {
                    return -a.min(*b);
                }
                (f - 1.0) * f / slope
            }
            Outline::Rectangle { half, radius } => {
                let [x, y] = [p[0].abs() - half[0] + radius, p[1].abs() - half[1] + radius];
                length([x.max(0.0), y.max(0.0)]) + x.max(y).min(0.0) - radius
            }
            Outline::Polygon { corners, radius } => polygon(corners, p) - radius,
            Outline::Ring { radius, width } => (length(p) - radius).abs() - width / 2.0,
            Outline::Strokes { lines, width } => {
                let nearest = lines
                    .iter()
                    .map(|line| squared_distance(*line, p))
                    .fold(f64::INFINITY, f64::min);
                nearest.sqrt() - width / 2.0
            }
        }
    }

    /// The largest distance of a point of the shape from the origin.
    pub(super) fn reach(&self) -> f64 {
        let furthest = |points: &mut dyn Iterator<Item = &Point>| {
            points.map(|p| length(*p)).fold(0.0, f64::max)
        };
        match self {
            Outline::Ellipse([a, b]) => a.max(*b),
            Outline::Rectangle { half, .. } => length(*half),
            Outline::Polygon { corners, radius } => furthest(&mut corners.iter()) + radius,
            Outline::Ring { radius, width } => radius + width / 2.0,
            Outline::Strokes { lines, width } => {
                furthest(&mut lines.iter().flatten()) + width / 2.0
            }
        }
    }
}

/// The signed distance of p from a polygon.
fn polygon(corners: &[Point], p: Point) -> f64 {
    let mut nearest = f64::INFINITY;
    let mut inside = false;
    let mut from = corners[corners.len() - 1];
    for &to in corners {
        nearest = nearest.min(squared_distance([from, to], p));
        // a ray from p to the right crosses this side
        if (from[1] > p[1]) != (to[1] > p[1]) {
            let x = from[0] + (to[0] - from[0]) * (p[1] - from[1]) / (to[1] - from[1]);
            inside ^= x > p[0];
        }
        from = to;
    }
    let distance = nearest.sqrt();
    if inside { -distance } else { distance }
}

/// The squared distance of p from a line segment.
fn squared_distance([from, to]: [Point; 2], p: Point) -> f64 {
    let along = [to[0] - from[0], to[1] - from[1]];
    let q = [p[0] - from[0], p[1] - from[1]];
    let squared = along[0] * along[0] + along[1] * along[1];
    let t = if squared > 0.0 {
        ((q[0] * along[0] + q[1] * along[1]) / squared).clamp(0.0, 1.0)
    } else {
        0.0
    };
    let [x, y] = [q[0] - t * along[0], q[1] - t * along[1]];
    x * x + y * y
}

fn length([x, y]: Point) -> f64 {
    (x * x + y * y).sqrt()
}
