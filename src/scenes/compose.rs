//! What a scene holds: a ground, two to five shapes, up to two lines of lettering, in colours that go together
//! and stand out from what is below them.

use std::f64::consts::TAU;

use super::colour::{Colour, Rgb};
use super::lettering::{self, GLYPHS, WORDS};
use super::outline::Outline;
use super::texture::{LATTICE, Texture};
use super::{Edge, Gradient, Layer, Point, Scene, Shadow};
use crate::rng::Philox;

/// The hues that go with a first one, in turns from it: neighbours, opposites, thirds.
const HARMONIES: [[f64; 3]; 4] = [
    [0.0, 0.08, -0.08],
    [0.0, 0.5, 0.06],
    [0.0, 0.33, 0.67],
    [0.0, 0.42, 0.58],
];
/// How many places or colours are tried where one is looked for.
const TRIES: usize = 12;
/// How far the colour of a shape is from that of the ground, at least, and from those of other shapes.
const APART: [f64; 2] = [0.3, 0.18];
/// The width of lettering, at most.
const WIDEST: f64 = 0.82;
/// The difference in luma of lettering from what is below it: more than the first; beyond the second, more is
/// not better.
const READABLE: [f64; 2] = [0.2, 0.36];
/// The pixel of the colours that lettering is compared with.
const SAMPLE: f64 = 1.0 / 64.0;

/// Draws a scene for an image of these half sides.
pub(super) fn scene(random: &mut Philox, half: Point) -> Scene {
    let mut studio = Studio::new(random);
    let (ground, gradient) = studio.ground(half);
    let mut scene = Scene {
        ground: gradient,
        layers: Vec::new(),
    };
    let mut used = vec![ground];
    let shapes = 2 + studio.random.below(4);
    for i in 0..shapes {
        // from large to small, so that what is in front hides little
        let scale = 1.2 - 0.5 * f64::from(i) / f64::from(shapes);
        let centre = studio.place(&scene.layers, half);
        let layer = studio.shape(scale, centre, &mut used);
        scene.layers.push(layer);
    }
    let lines = [0, 0, 0, 1, 1, 1, 1, 1, 2, 2][studio.random.below(10) as usize];
    let mut taken = Vec::new();
    for _ in 0..lines {
        let layer = studio.lettering(&scene, half, &mut taken);
        scene.layers.extend(layer);
    }
    scene
}

/// The draws of a scene, and what its parts have in common.
struct Studio<'a> {
    random: &'a mut Philox,
    hues: [f64; 3],
    /// The direction from which light falls.
    light: Point,
}

impl<'a> Studio<'a> {
    fn new(random: &'a mut Philox) -> Self {
        let harmony = HARMONIES[random.below(4) as usize];
        let first = random.uniform();
        let angle = (0.55 + 0.4 * random.uniform()) * TAU;
        let (sin, cos) = libm::sincos(angle);
        Studio {
            random,
            hues: harmony.map(|turn| first + turn),
            light: [cos, sin],
        }
    }

    fn between(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.random.uniform()
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.uniform() < probability
    }

    fn hue(&mut self) -> f64 {
        self.hues[self.random.below(3) as usize] + self.between(-0.02, 0.02)
    }

    /// The colour of the ground and its gradient: light, middling or dark.
    fn ground(&mut self, half: Point) -> (Colour, Gradient) {
        let hue = self.hue();
        let (lightness, chroma) = match self.random.below(5) {
            0 | 1 => (self.between(0.85, 0.94), self.between(0.02, 0.07)),
            2 | 3 => (
                unmuddied(self.between(0.62, 0.76), hue),
                self.between(0.06, 0.13),
            ),
            _ => (self.between(0.3, 0.4), self.between(0.04, 0.09)),
        };
        let colour = Colour {
            lightness,
            chroma,
            hue,
        };
        let step = self.between(0.04, 0.1);
        let second = Colour {
            hue: hue + self.between(-0.09, 0.09),
            ..colour.lighter(-step)
        };
        let [x, y] = self.light;
        let along = x.abs() * half[0] + y.abs() * half[1];
        let gradient = Gradient {
            from: colour.lighter(step).rgb(),
            to: second.rgb(),
            along: [-x * along, -y * along],
        };
        (colour, gradient)
    }

    /// A colour that stands out from the used ones, the first of which is the ground.
    fn colour(&mut self, used: &[Colour]) -> Colour {
        let mut best = (f64::NEG_INFINITY, used[0]);
        for _ in 0..TRIES {
            let hue = self.hue();
            let colour = if self.chance(0.12) {
                let lightness = if self.chance(0.65) { 0.95 } else { 0.3 };
                let chroma = 0.03;
                Colour {
                    lightness,
                    chroma,
                    hue,
                }
            } else {
                let lightness = unmuddied(self.between(0.45, 0.84), hue);
                let chroma = self.between(0.11, 0.2);
                Colour {
                    lightness,
                    chroma,
                    hue,
                }
            };
            let slack = |(i, other): (usize, &Colour)| {
                colour.distance(*other) - if i == 0 { APART[0] } else { APART[1] }
            };
            let worst = used
                .iter()
                .enumerate()
                .map(slack)
                .fold(f64::INFINITY, f64::min);
            if worst > best.0 {
                best = (worst, colour);
            }
            if worst >= 0.0 {
                break;
            }
        }
        best.1
    }

    /// Of some places in the image the one furthest from the centres of the layers.
    fn place(&mut self, layers: &[Layer], half: Point) -> Point {
        let mut best = (f64::NEG_INFINITY, [0.0, 0.0]);
        for _ in 0..4 {
            let p = half.map(|side| side * self.between(-0.8, 0.8));
            let apart = layers
                .iter()
                .map(|layer| {
                    let [x, y] = [p[0] - layer.centre[0], p[1] - layer.centre[1]];
                    x * x + y * y
                })
                .fold(f64::INFINITY, f64::min);
            if apart > best.0 {
                best = (apart, p);
            }
        }
        best.1
    }

    fn shape(&mut self, scale: f64, centre: Point, used: &mut Vec<Colour>) -> Layer {
        let outline = self.outline(scale);
        let colour = self.colour(used);
        used.push(colour);
        let texture = self.chance(0.4).then(|| {
            let step = if colour.lightness > 0.6 { -0.16 } else { 0.16 };
            (self.texture(), colour.lighter(step).rgb())
        });
        let edge = self.chance(0.25).then(|| {
            let step = if colour.lightness > 0.7 { -0.45 } else { 0.4 };
            Edge {
                width: self.between(0.02, 0.035),
                colour: colour.lighter(step).rgb(),
            }
        });
        let shadow = self.chance(0.5).then(|| self.shadow());
        let (sin, cos) = libm::sincos(TAU * self.random.uniform());
        let step = self.between(0.03, 0.09);
        Layer {
            fill: self.shading(colour, step, outline.reach()),
            reach: outline.reach(),
            outline,
            centre,
            turn: [cos, sin],
            texture,
            edge,
            shadow,
        }
    }

    fn outline(&mut self, scale: f64) -> Outline {
        match self.random.below(10) {
            0..=2 => {
                let a = scale * self.between(0.15, 0.3);
                Outline::Ellipse([a, a * self.between(0.6, 1.0)])
            }
            3..=5 => {
                let half = [self.between(0.14, 0.32), self.between(0.1, 0.22)].map(|v| v * scale);
                let radius = if self.chance(0.5) {
                    0.0
                } else {
                    half[1] * self.between(0.2, 0.9)
                };
                Outline::Rectangle { half, radius }
            }
            6..=8 => {
                let sides = 3 + self.random.below(4);
                let size = scale * self.between(0.2, 0.3);
                let radius = if self.chance(0.5) {
                    0.0
                } else {
                    size * self.between(0.1, 0.25)
                };
                let corners = (0..sides).map(|i| {
                    let (sin, cos) = libm::sincos(TAU * f64::from(i) / f64::from(sides));
                    [(size - radius) * cos, (size - radius) * sin]
                });
                Outline::Polygon {
                    corners: corners.collect(),
                    radius,
                }
            }
            _ => Outline::Ring {
                radius: scale * self.between(0.16, 0.26),
                width: scale * self.between(0.06, 0.13),
            },
        }
    }

    fn texture(&mut self) -> Texture {
        match self.random.below(4) {
            0 => Texture::Stripes {
                period: self.between(0.09, 0.17),
            },
            1 => Texture::Checks {
                period: self.between(0.15, 0.24),
            },
            2 => Texture::Dots {
                period: self.between(0.1, 0.16),
            },
            _ => Texture::Noise {
                period: self.between(0.08, 0.14),
                values: (0..LATTICE * LATTICE)
                    .map(|_| self.random.uniform())
                    .collect(),
            },
        }
    }

    fn shadow(&mut self) -> Shadow {
        let (far, blur) = (self.between(0.02, 0.05), self.between(0.02, 0.05));
        Shadow {
            offset: self.light.map(|v| -far * v),
            blur,
            strength: self.between(0.25, 0.45),
        }
    }

    /// A word, a number or a single character where it can be read: inside the image, clear of the others
    /// (their boxes are `taken`), in a colour unlike what is below. Nothing if no such place is found.
    fn lettering(
        &mut self,
        scene: &Scene,
        half: Point,
        taken: &mut Vec<[Point; 2]>,
    ) -> Option<Layer> {
        let (text, height) = self.text();
        let (lines, height) = lettering::lines(&text, height, WIDEST);
        let width = height * self.between(0.14, 0.2);
        let (sin, cos) = libm::sincos(TAU * self.between(-0.05, 0.05));
        let points: Vec<Point> = lines
            .iter()
            .flatten()
            .map(|[x, y]| [cos * x - sin * y, sin * x + cos * y])
            .collect();
        let size = [0, 1].map(|k| points.iter().fold(0.0, |m: f64, p| m.max(p[k].abs())) + width);
        let outline = Outline::Strokes { lines, width };
        let inks = self.inks();
        let (mut best, mut most) = (None, READABLE[0]);
        for _ in 0..TRIES {
            let centre = [0, 1].map(|k| (half[k] - size[k]).max(0.0) * self.between(-1.0, 1.0));
            let clear = taken
                .iter()
                .all(|[at, other]| (0..2).any(|k| (at[k] - centre[k]).abs() > other[k] + size[k]));
            if !clear {
                continue;
            }
            let below: Vec<f64> = points
                .iter()
                .map(|p| luma(scene.colour([p[0] + centre[0], p[1] + centre[1]], SAMPLE)))
                .collect();
            for ink in inks {
                let own = luma(ink.rgb());
                let contrast = below.iter().fold(1.0, |m: f64, v| m.min((v - own).abs()));
                if contrast.min(READABLE[1]) > most {
                    most = contrast.min(READABLE[1]);
                    best = Some((centre, ink));
                }
            }
        }
        let (centre, ink) = best?;
        taken.push([centre, size]);
        let shadow = self.chance(0.2).then(|| self.shadow());
        Some(Layer {
            fill: self.shading(ink, 0.03, outline.reach()),
            reach: outline.reach(),
            outline,
            centre,
            turn: [cos, sin],
            texture: None,
            edge: None,
            shadow,
        })
    }

    /// A text and its height.
    fn text(&mut self) -> (String, f64) {
        match self.random.below(5) {
            0 | 1 => {
                let word = WORDS[self.random.below(WORDS.len() as u32) as usize];
                (word.to_owned(), self.between(0.18, 0.25))
            }
            2 => {
                let number = 10 + self.random.below(90);
                (number.to_string(), self.between(0.22, 0.36))
            }
            _ => {
                let glyph = GLYPHS[self.random.below(GLYPHS.len() as u32) as usize];
                (glyph.0.to_string(), self.between(0.26, 0.46))
            }
        }
    }

    /// Colours for lettering in an order of chance: two of the scene's hues, near white, near black.
    fn inks(&mut self) -> [Colour; 4] {
        let mut inks =
            [(0.97, 0.01), (0.22, 0.03), (0.82, 0.15), (0.42, 0.14)].map(|(lightness, chroma)| {
                Colour {
                    lightness,
                    chroma,
                    hue: self.hue(),
                }
            });
        for last in (1..4).rev() {
            inks.swap(last as usize, self.random.below(last + 1) as usize);
        }
        inks
    }

    /// From lighter to darker, away from the light.
    fn shading(&self, colour: Colour, step: f64, reach: f64) -> Gradient {
        Gradient {
            from: colour.lighter(step).rgb(),
            to: colour.lighter(-step).rgb(),
            along: self.light.map(|v| -reach * v),
        }
    }
}

/// A lightness, raised where dark colours of this hue look muddy: from orange through yellow to lime.
fn unmuddied(lightness: f64, hue: f64) -> f64 {
    const YELLOW: f64 = 0.27;
    let apart = (hue - YELLOW - (hue - YELLOW + 0.5).floor()).abs();
    let yellow = (1.4 * (1.0 - apart / 0.16)).clamp(0.0, 1.0);
    lightness + yellow * 0.85 * (0.86 - lightness)
}

/// The lightness of an sRGB colour (BT.601's weights).
fn luma([r, g, b]: Rgb) -> f64 {
    0.299 * r + 0.587 * g + 0.114 * b
}
