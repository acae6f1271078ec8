//! Changes of brightness, contrast, saturation and hue, defined as in pytorch/vision's
//! `torchvision/transforms/_functional_tensor.py`, greys weighted as Pillow does.
//! Pixels are interleaved red, green, blue in [0, 1], and are brought back there after each change.

/// One change of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    /// Colours times this factor.
    Brightness(f64),
    /// Differences from the mean grey of the image times this factor.
    Contrast(f64),
    /// Differences of a pixel from its own grey times this factor.
    Saturation(f64),
    /// Hues turned by this part of a circle.
    Hue(f64),
}

impl Change {
    /// Changes the pixels of a whole image.
    pub(super) fn apply(self, pixels: &mut [[f64; 3]]) {
        let mean = match self {
            Change::Contrast(_) => pixels.iter().map(grey).sum::<f64>() / pixels.len() as f64,
            _ => 0.0,
        };
        for pixel in pixels {
            *pixel = match self {
                Change::Brightness(factor) => away(*pixel, 0.0, factor),
                Change::Contrast(factor) => away(*pixel, mean, factor),
                Change::Saturation(factor) => away(*pixel, grey(pixel), factor),
                Change::Hue(turn) => turned(*pixel, turn),
            };
        }
    }
}

/// The pixel's differences from a grey times a factor.
fn away(pixel: [f64; 3], grey: f64, factor: f64) -> [f64; 3] {
    pixel.map(|v| (factor * v + (1.0 - factor) * grey).clamp(0.0, 1.0))
}

fn grey([r, g, b]: &[f64; 3]) -> f64 {
    0.299 * r + 0.587 * g + 0.114 * b
}

/// The pixel with its hue turned, saturation and value of HSV as they were.
fn turned(pixel: [f64; 3], turn: f64) -> [f64; 3] {
    let [r, g, b] = pixel;
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = most - least;
    if chroma <= 0.0 {
        return pixel;
    }
    let sixths = if most == r {
        (g - b) / chroma
    } else if most == g {
        2.0 + (b - r) / chroma
    } else {
        4.0 + (r - g) / chroma
    };
    let sixths = sixths + 6.0 * turn;
    // a channel is full within one sixth of its own hue, gone beyond two, and falls linearly between
    [0.0, 2.0, 4.0].map(|own| {
        let from = sixths - own;
        let apart = (from - 6.0 * (from / 6.0 + 0.5).floor()).abs();
        (least + chroma * (2.0 - apart).clamp(0.0, 1.0)).clamp(0.0, 1.0)
    })
}
