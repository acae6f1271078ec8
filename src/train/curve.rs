//! The loss curve as a picture: SVG, the losses in grey and their moving average over them, on a logarithmic axis.

use std::fmt::Write as _;
use std::path::Path;

use crate::error::Result;
use crate::io::atomic::{failed, write_atomic};

/// Width, height, and the margin for the labels.
const SIZE: (f64, f64) = (800.0, 400.0);
const MARGIN: (f64, f64) = (60.0, 30.0);
/// Points that are drawn at most: a long run is thinned to the means of equal parts.
const POINTS: usize = 800;

/// Writes the curve of `losses`, the first of step 0; nothing for less than two.
///
/// # Errors
/// [`crate::Error::File`] when it cannot be written.
pub fn write(path: &Path, losses: &[f64]) -> Result<()> {
    match draw(losses) {
        Some(svg) => write_atomic(path, |w| w.write_all(svg.as_bytes()).map_err(failed(path))),
        None => Ok(()),
    }
}

fn draw(losses: &[f64]) -> Option<String> {
    let part = losses.len().div_ceil(POINTS).max(1);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let points: Vec<f64> = losses.chunks(part).map(mean).collect();
    let (low, high) = points
        .iter()
        .filter(|loss| loss.is_finite() && **loss > 0.0)
        .fold((f64::INFINITY, 0.0f64), |(low, high), &v| {
            (low.min(v), high.max(v))
        });
    if points.len() < 2 || low >= high {
        return None;
    }
    let (width, height) = (SIZE.0 - 2.0 * MARGIN.0, SIZE.1 - 2.0 * MARGIN.1);
    let place = |i: usize, loss: f64| {
        let up = (loss.max(low) / low).ln() / (high / low).ln();
        let right = i as f64 / (points.len() - 1) as f64;
        (MARGIN.0 + width * right, MARGIN.1 + height * (1.0 - up))
    };
    let line = |values: &[f64]| {
        let mut text = String::new();
        for (i, &loss) in values.iter().enumerate() {
            let (x, y) = place(i, loss);
            let _ = write!(text, "{x:.1},{y:.1} ");
        }
        text
    };
    let (w, h) = SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"white\"/>\n"
    );
    for label in ticks(low, high) {
        let (x, y) = (w - MARGIN.0, place(0, label).1);
        let (left, text) = (MARGIN.0, MARGIN.0 - 8.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {y:.1}H{x}\" stroke=\"#ddd\"/>\
             <text x=\"{text}\" y=\"{y:.1}\" text-anchor=\"end\" dominant-baseline=\"middle\">{label}</text>"
        );
    }
    let (first, last) = (MARGIN.0, w - MARGIN.0);
    let (y, steps) = (h - 8.0, losses.len());
    let _ = writeln!(
        svg,
        "<text x=\"{first}\" y=\"{y}\">step 1</text><text x=\"{last}\" y=\"{y}\" text-anchor=\"end\">{steps}</text>\n\
         <polyline points=\"{}\" fill=\"none\" stroke=\"#bbb\"/>\n\
         <polyline points=\"{}\" fill=\"none\" stroke=\"#1f5fbf\" stroke-width=\"2\"/>\n</svg>",
        line(&points),
        line(&smooth(&points)),
    );
    Some(svg)
}

/// The mean of each point and up to 20 before and after it.
fn smooth(points: &[f64]) -> Vec<f64> {
    let around = |i: usize| {
        let near = &points[i.saturating_sub(20)..(i + 21).min(points.len())];
        near.iter().sum::<f64>() / near.len() as f64
    };
    (0..points.len()).map(around).collect()
}

/// 1, 2 and 5 times the powers of ten between these.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let all = powers.flat_map(|p| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(p)));
    // Products of powers of ten are not exact: print what was meant.
    let exact = |v: f64| (v * 1e9).round() / 1e9;
    all.filter(|v| (low..=high).contains(v))
        .map(exact)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_its_points_inside_and_its_extremes_at_the_edges() {
        let losses = [1.0, 0.1, 0.01];
        let svg = draw(&losses).unwrap();
        let points = svg.split("points=\"").nth(1).unwrap();
        let points: Vec<&str> = points
            .split('"')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        assert_eq!(points, ["60.0,30.0", "400.0,200.0", "740.0,370.0"]);
        assert!(svg.contains(">0.05<") && svg.contains(">1<"));
    }

    #[test]
    fn too_little_to_draw_is_no_curve() {
        assert!(draw(&[]).is_none());
        assert!(draw(&[1.0]).is_none());
        assert!(draw(&[2.0, 2.0]).is_none());
        assert!(draw(&[f64::NAN, 1.0]).is_none());
    }

    #[test]
    fn a_long_run_is_thinned() {
        let losses: Vec<f64> = (1..=10_000).map(f64::from).collect();
        let svg = draw(&losses).unwrap();
        let points = svg
            .split("points=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        assert_eq!(points.split_whitespace().count(), 770);
        assert!(svg.contains(">10000<"));
    }
}
