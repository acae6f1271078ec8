//! Textures of a shape: how much of a second colour there is at a point.

use super::{Point, coverage, smooth};

/// Cells of the noise in each direction, before it repeats.
pub(super) const LATTICE: usize = 16;

/// A pattern in the coordinates of the outline.
pub(super) enum Texture {
    /// Stripes as wide as the gaps between them.
    Stripes { period: f64 },
    /// A chessboard of squares with sides of `period / 2`.
    Checks { period: f64 },
    /// Discs on a square grid, 0.56 of the period across.
    Dots { period: f64 },
    /// Smooth random values at the corners of squares, `LATTICE x LATTICE` of them in [0, 1].
    Noise { period: f64, values: Vec<f64> },
}

impl Texture {
    /// How much of the second colour there is at p, 0 to 1, averaged over about one pixel.
    pub(super) fn at(&self, p: Point, pixel: f64) -> f64 {
        match self {
            Texture::Stripes { period } => stripe(p[0], *period, pixel),
            Texture::Checks { period } => {
                let [x, y] = p.map(|v| 2.0 * stripe(v, *period, pixel) - 1.0);
                (1.0 + x * y) / 2.0
            }
            Texture::Dots { period } => {
                let [x, y] = p.map(|v| from_multiple(v, *period));
                coverage((x * x + y * y).sqrt() - 0.28 * period, pixel)
            }
            Texture::Noise { period, values } => {
                let [x, y] = p.map(|v| v / period);
                let (across, down) = (smooth(x - x.floor()), smooth(y - y.floor()));
                let cell = |v: f64, next: i64| (v.floor() as i64 + next).rem_euclid(LATTICE as i64);
                let value = |i, j| values[cell(y, j) as usize * LATTICE + cell(x, i) as usize];
                let row = |j| value(0, j) + across * (value(1, j) - value(0, j));
                row(0) + down * (row(1) - row(0))
            }
        }
    }
}

/// Stripes of half the period, the middle of one at 0.
fn stripe(x: f64, period: f64, pixel: f64) -> f64 {
    coverage(from_multiple(x, period).abs() - period / 4.0, pixel)
}

/// x less the nearest multiple of the period.
fn from_multiple(x: f64, period: f64) -> f64 {
    x - period * (x / period + 0.5).floor()
}
