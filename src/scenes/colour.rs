//! Colours by lightness, chroma and hue in OKLab (<https://bottosson.github.io/posts/oklab/>), where equal steps
//! look equal; painted and mixed in sRGB.

use std::f64::consts::TAU;

/// sRGB in [0, 1].
pub(super) type Rgb = [f64; 3];

/// A colour of OKLab in polar coordinates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Colour {
    /// 0 is black, 1 is white.
    pub lightness: f64,
    /// 0 is grey; the strongest colours of sRGB have 0.2 to 0.3.
    pub chroma: f64,
    /// In turns.
    pub hue: f64,
}

impl Colour {
    fn lab(self) -> [f64; 3] {
        let (sin, cos) = libm::sincos(TAU * self.hue);
        [self.lightness, self.chroma * cos, self.chroma * sin]
    }

    /// How different two colours look: black and white are 1 apart.
    pub(super) fn distance(self, other: Colour) -> f64 {
        let (a, b) = (self.lab(), other.lab());
        a.iter()
            .zip(b)
            .map(|(x, y)| (x - y) * (x - y))
            .sum::<f64>()
            .sqrt()
    }

    /// This colour with `lightness` added, within black and white.
    pub(super) fn lighter(self, lightness: f64) -> Self {
        Colour {
            lightness: (self.lightness + lightness).clamp(0.0, 1.0),
            ..self
        }
    }

    /// The colour in sRGB, as much greyer as it takes to exist there.
    pub(super) fn rgb(mut self) -> Rgb {
        let mut linear = linear(self.lab());
        while self.chroma > 1e-3 && linear.iter().any(|v| !(-1e-4..=1.0001).contains(v)) {
            self.chroma *= 0.95;
            linear = self::linear(self.lab());
        }
        linear.map(|v| {
            let v = v.clamp(0.0, 1.0);
            if v <= 0.003_130_8 {
                12.92 * v
            } else {
                1.055 * libm::pow(v, 1.0 / 2.4) - 0.055
            }
        })
    }
}

/// From OKLab to linear sRGB.
fn linear([lightness, a, b]: [f64; 3]) -> [f64; 3] {
    let cube = |v: f64| v * v * v;
    let l = cube(lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b);
    let m = cube(lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b);
    let s = cube(lightness - 0.089_484_177_5 * a - 1.291_485_548_0 * b);
    [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701_0 * s,
    ]
}

/// `(1 - t) a + t b`.
pub(super) fn mix(a: Rgb, b: Rgb, t: f64) -> Rgb {
    std::array::from_fn(|i| a[i] + t * (b[i] - a[i]))
}
