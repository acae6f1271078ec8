//! Plots as SVG: clouds of points, each with the histogram of its second coordinate; lines on a logarithmic axis; bars.

use std::fmt::Write as _;

use super::mixture::Point;

/// A side of the square of a cloud, and the room around it.
const SIDE: f64 = 200.0;
const GAP: f64 = 16.0;
const TITLE: f64 = 22.0;
const HISTOGRAM: f64 = 50.0;
/// Panels of a row, points of a panel, bars of a histogram.
const COLUMNS: usize = 4;
const POINTS: usize = 1500;
const BARS: usize = 50;

/// Clouds side by side, each `[-range, range]` squared: its first 1500 points, and beside them the histogram of all second
/// coordinates. A line marks the measured first coordinate.
pub fn clouds(panels: &[(String, &[Point])], measured: f64, range: f64) -> String {
    let (width, height) = (SIDE + HISTOGRAM + GAP, SIDE + TITLE + GAP);
    let rows = panels.len().div_ceil(COLUMNS);
    let columns = panels.len().min(COLUMNS);
    let (w, h) = (columns as f64 * width + GAP, rows as f64 * height + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"white\"/>\n"
    );
    for (i, (title, points)) in panels.iter().enumerate() {
        let left = GAP + (i % COLUMNS) as f64 * width;
        let top = GAP + TITLE + (i / COLUMNS) as f64 * height;
        let across = |v: f64| left + SIDE * (0.5 + 0.5 * v / range);
        let down = |v: f64| top + SIDE * (0.5 - 0.5 * v / range);
        let inside = |p: &&Point| p.iter().all(|v| v.abs() <= range);
        let mut dots = String::new();
        for [x, y] in points.iter().take(POINTS).filter(inside) {
            let _ = write!(dots, "M{:.1} {:.1}h0", across(*x), down(*y));
        }
        let (title, y) = (escaped(title), top - 6.0);
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"{y}\">{title}</text>\n\
             <rect x=\"{left}\" y=\"{top}\" width=\"{SIDE}\" height=\"{SIDE}\" fill=\"none\" stroke=\"#ccc\"/>\n\
             <path d=\"M{:.1} {top}v{SIDE}\" stroke=\"#d33\" stroke-width=\"0.5\"/>\n\
             <path d=\"{dots}\" stroke=\"#1f5fbf\" stroke-width=\"1.5\" stroke-linecap=\"round\" opacity=\"0.5\"/>",
            across(measured)
        );
        let mut bars = [0usize; BARS];
        for [_, y] in points.iter() {
            let bar = ((0.5 + 0.5 * y / range) * BARS as f64).floor();
            if (0.0..BARS as f64).contains(&bar) {
                bars[bar as usize] += 1;
            }
        }
        let most = bars.iter().max().copied().unwrap_or(0).max(1) as f64;
        let thick = SIDE / BARS as f64;
        for (b, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{thick:.1}\" fill=\"#1f5fbf\" opacity=\"0.6\"/>",
                left + SIDE + 4.0,
                top + SIDE - (b + 1) as f64 * thick,
                (HISTOGRAM - 4.0) * *count as f64 / most
            );
        }
    }
    svg + "</svg>\n"
}

/// Lines over the numbers of their values, on a logarithmic axis; what is not above 0 is left out.
pub fn lines(title: &str, lines: &[(String, Vec<f64>)]) -> String {
    const SIZE: (f64, f64) = (800.0, 420.0);
    const LEFT: f64 = 60.0;
    const RIGHT: f64 = 150.0;
    const COLOURS: [&str; 7] = ["#222", "#1f5fbf", "#d33", "#2a2", "#c80", "#808", "#088"];
    let positive = || {
        lines
            .iter()
            .flat_map(|(_, values)| values)
            .filter(|v| v.is_finite() && **v > 0.0)
    };
    let low = positive()
        .fold(f64::INFINITY, |low, v| low.min(*v))
        .log10()
        .floor();
    let high = positive()
        .fold(0.0f64, |high, v| high.max(*v))
        .log10()
        .ceil()
        .max(low + 1.0);
    let (w, h) = SIZE;
    let (width, height) = (w - LEFT - RIGHT, h - 70.0);
    let down = |v: f64| 40.0 + height * (high - v.log10()) / (high - low);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"20\">{}</text>\n",
        escaped(title)
    );
    if positive().next().is_none() {
        return svg + "</svg>\n";
    }
    for power in low as i32..=high as i32 {
        let (y, right, text) = (down(10f64.powi(power)), w - RIGHT, LEFT - 8.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>\
             <text x=\"{text}\" y=\"{y:.1}\" text-anchor=\"end\" dominant-baseline=\"middle\">1e{power}</text>"
        );
    }
    for (i, (name, values)) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let across = |k: usize| LEFT + width * k as f64 / (values.len().max(2) - 1) as f64;
        let mut points = String::new();
        for (k, v) in values
            .iter()
            .enumerate()
            .filter(|(_, v)| v.is_finite() && **v > 0.0)
        {
            let _ = write!(points, "{:.1},{:.1} ", across(k), down(*v));
        }
        let (x, y) = (w - RIGHT + 10.0, 50.0 + 18.0 * i as f64);
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
             <text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>",
            escaped(name)
        );
    }
    svg + "</svg>\n"
}

/// Bars from 0 to the right: under each name one of every series, with its value. What is no finite number above 0 has no
/// length.
pub fn bars(title: &str, series: &[&str], groups: &[(String, Vec<f64>)]) -> String {
    const WIDTH: f64 = 800.0;
    const LEFT: f64 = 170.0;
    const RIGHT: f64 = 80.0;
    const TOP: f64 = 64.0;
    const BAR: f64 = 16.0;
    const COLOURS: [&str; 4] = ["#1f5fbf", "#c80", "#2a2", "#808"];
    let length = |v: f64| if v.is_finite() { v.max(0.0) } else { 0.0 };
    let all = groups.iter().flat_map(|(_, values)| values);
    let most = all.fold(f64::MIN_POSITIVE, |most, v| most.max(length(*v)));
    let group = BAR * series.len() as f64 + 10.0;
    let h = TOP + group * groups.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {h}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{h}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"20\">{}</text>\n",
        escaped(title)
    );
    for (i, name) in series.iter().enumerate() {
        let (x, colour) = (LEFT + 200.0 * i as f64, COLOURS[i % COLOURS.len()]);
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"44\" fill=\"{colour}\">{}</text>",
            escaped(name)
        );
    }
    for (g, (name, values)) in groups.iter().enumerate() {
        let top = TOP + group * g as f64;
        let (x, y) = (LEFT - 8.0, top + 0.5 * BAR * series.len() as f64);
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\" dominant-baseline=\"middle\">{}</text>",
            escaped(name)
        );
        for (i, v) in values.iter().enumerate() {
            let (y, colour) = (top + BAR * i as f64, COLOURS[i % COLOURS.len()]);
            let width = (WIDTH - LEFT - RIGHT) * length(*v) / most;
            let (x, middle, thick) = (LEFT + width + 6.0, y + 0.5 * BAR, BAR - 2.0);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{thick}\" fill=\"{colour}\"/>\
                 <text x=\"{x:.1}\" y=\"{middle:.1}\" dominant-baseline=\"middle\">{v:.4}</text>"
            );
        }
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
