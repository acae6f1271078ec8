//! Scenes made from a seed: shapes, textures and lettering on a coloured ground, so that there is something
//! to learn from and to restore where no photographs are. A scene is geometry in units of the image's short
//! side, from the middle; [`render`] paints it at any size, antialiased by signed distances.
//!
//! The same seed and index give the same bits on every platform: draws are whole numbers of Philox, arithmetic
//! is IEEE `f64` (`+ - * / sqrt floor`), and sine, cosine and power are the `libm` crate's, in software.
//!
//! To add a shape: a variant of `Outline` (`outline.rs`); a texture: a variant of `Texture` (`texture.rs`);
//! a character: a row of `GLYPHS` (`lettering.rs`). Each changes the scenes of all seeds.

use crate::error::{Error, Result};
use crate::io::image::Image;
use crate::rng::{Philox, stream_key};

mod colour;
mod compose;
mod lettering;
mod outline;
mod texture;

use colour::{Rgb, mix};
use outline::Outline;
use texture::Texture;

/// The shortest side: below it lettering cannot be read.
const SHORTEST: usize = 32;
/// The longest side.
const LONGEST: usize = 1 << 13;

/// x to the right, y down, in units of the short side.
type Point = [f64; 2];

/// Scene number `index` of a seed, `[height, width]` pixels in [-1, 1]. Sizes of the same proportions show the
/// same picture, up to what antialiasing does to a pixel.
///
/// # Errors
/// [`Error::Argument`] for a side below 32 or above 8192 pixels.
pub fn render(seed: u64, index: u64, [height, width]: [usize; 2]) -> Result<Image> {
    if !(SHORTEST..=LONGEST).contains(&height) || !(SHORTEST..=LONGEST).contains(&width) {
        let why = format!("wanted sides of {SHORTEST} to {LONGEST} pixels, got {height} x {width}");
        return Err(Error::argument("size of a scene", why));
    }
    let pixel = 1.0 / height.min(width) as f64;
    let half = [width as f64 * pixel / 2.0, height as f64 * pixel / 2.0];
    let scene = compose::scene(&mut Philox::new(stream_key(seed, index)), half);
    let mut pixels = Vec::with_capacity(height * width * 3);
    for y in 0..height {
        for x in 0..width {
            let at = |i: usize, half: f64| (i as f64 + 0.5) * pixel - half;
            let colour = scene.colour([at(x, half[0]), at(y, half[1])], pixel);
            pixels.extend(colour.map(|v| (2.0 * v - 1.0) as f32));
        }
    }
    Image::new(width, height, pixels)
}

/// A line of text, black on white, in the middle of `[height, width]` pixels in [-1, 1]: capitals, digits, `+` and `-`.
///
/// # Errors
/// [`Error::Shape`] for an empty picture.
pub fn heading(text: &str, [height, width]: [usize; 2]) -> Result<Image> {
    let (lines, size) = lettering::lines(text, 0.55 * height as f64, 0.9 * width as f64);
    let pen = Outline::Strokes {
        lines,
        width: size / 7.0,
    };
    let mut pixels = Vec::with_capacity(height * width * 3);
    for y in 0..height {
        for x in 0..width {
            let middle = |i: usize, of: usize| i as f64 + 0.5 - of as f64 / 2.0;
            let distance = pen.distance([middle(x, width), middle(y, height)]);
            pixels.extend([(1.0 - 2.0 * coverage(distance, 1.0)) as f32; 3]);
        }
    }
    Image::new(width, height, pixels)
}

/// What there is to see.
struct Scene {
    ground: Gradient,
    /// From back to front.
    layers: Vec<Layer>,
}

impl Scene {
    /// The colour at p, averaged over about one pixel.
    fn colour(&self, p: Point, pixel: f64) -> Rgb {
        let ground = self.ground.at(p);
        self.layers
            .iter()
            .fold(ground, |below, layer| layer.over(below, p, pixel))
    }
}

/// One shape, or one line of lettering.
struct Layer {
    outline: Outline,
    centre: Point,
    /// Cosine and sine of the angle it is turned by.
    turn: Point,
    /// No part of the outline is further than this from the centre.
    reach: f64,
    /// Relative to the centre.
    fill: Gradient,
    texture: Option<(Texture, Rgb)>,
    edge: Option<Edge>,
    shadow: Option<Shadow>,
}

/// A line along the inside of an outline.
struct Edge {
    width: f64,
    colour: Rgb,
}

/// A soft shadow on everything below.
struct Shadow {
    offset: Point,
    /// Its border fades over twice this width.
    blur: f64,
    /// How much of the light it takes.
    strength: f64,
}

impl Layer {
    fn over(&self, below: Rgb, p: Point, pixel: f64) -> Rgb {
        let q = [p[0] - self.centre[0], p[1] - self.centre[1]];
        let mut colour = below;
        if let Some(shadow) = &self.shadow {
            let q = [q[0] - shadow.offset[0], q[1] - shadow.offset[1]];
            let lost = shadow.strength
                * (1.0 - smooth(0.5 + self.distance(q, shadow.blur) / (2.0 * shadow.blur)));
            colour = colour.map(|v| v * (1.0 - lost));
        }
        let distance = self.distance(q, pixel);
        let cover = coverage(distance, pixel);
        if cover == 0.0 {
            return colour;
        }
        let mut own = self.fill.at(q);
        if let Some((texture, ink)) = &self.texture {
            own = mix(own, *ink, texture.at(self.local(q), pixel));
        }
        if let Some(edge) = &self.edge {
            own = mix(
                own,
                edge.colour,
                1.0 - coverage(distance + edge.width, pixel),
            );
        }
        mix(colour, own, cover)
    }

    /// The signed distance from the outline at q from the centre; beyond `margin` outside its reach, any
    /// number beyond `margin`.
    fn distance(&self, q: Point, margin: f64) -> f64 {
        let beyond = self.reach + margin;
        if q[0] * q[0] + q[1] * q[1] > beyond * beyond {
            return margin;
        }
        self.outline.distance(self.local(q))
    }

    /// q in the coordinates of the outline.
    fn local(&self, [x, y]: Point) -> Point {
        let [cos, sin] = self.turn;
        [cos * x + sin * y, cos * y - sin * x]
    }
}

/// From one colour to another along a line.
struct Gradient {
    from: Rgb,
    to: Rgb,
    /// Half way from the first colour, at `-along`, to the second, at `along`.
    along: Point,
}

impl Gradient {
    fn at(&self, p: Point) -> Rgb {
        let [x, y] = self.along;
        let t = (p[0] * x + p[1] * y) / (x * x + y * y);
        mix(self.from, self.to, (0.5 + t / 2.0).clamp(0.0, 1.0))
    }
}

/// How much of a pixel lies inside an edge at this signed distance from its middle.
fn coverage(distance: f64, pixel: f64) -> f64 {
    (0.5 - distance / pixel).clamp(0.0, 1.0)
}

/// From 0 at t = 0 to 1 at t = 1, level at both ends.
fn smooth(t: f64) -> f64 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests;
