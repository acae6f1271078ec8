//! Denoiser and codec in overlapping tiles, for images too large to be worked on whole: an approximation, for a tile sees
//! nothing of the others.
//!
//! The image of a map is the sum of its tiles' images, weighted so that the weights of every pixel sum to one, as
//! MultiDiffusion does it (Bar-Tal et al. 2023, equation 5), with weights that fall towards a tile's edges. A backward pass
//! computes each tile's forward pass again, so that the activations of one tile are alive at a time.

use super::prior::{Codec, Denoiser, Pullback};
use crate::cx::Cx;
use crate::error::Result;
use crate::operators::matrix::Banded;
use crate::operators::separable::Separable;
use crate::ops::banded::Matrix;
use crate::ops::combine;
use crate::tensor::Tensor;

/// Tiles overlap their neighbours by at least this part of their side.
const OVERLAP: usize = 4;

/// Where the tiles of an image lie, in units of state pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiling {
    size: [usize; 2],
    side: usize,
}

impl Tiling {
    /// Tiles of this side, 2 where it is less, on states of `size = [h, w]`; `None` when one tile covers all.
    pub fn new(size: [usize; 2], side: usize) -> Option<Self> {
        let side = side.max(2);
        let tiles = size.iter().any(|n| *n > side);
        tiles.then_some(Tiling { size, side })
    }

    /// The tiles of something with `scale` pixels for each state pixel along each side, row by row.
    ///
    /// # Errors
    /// [`Error::Plan`](crate::Error::Plan) when there is no room for their weights.
    pub fn tiles(&self, cx: &Cx, scale: usize) -> Result<Vec<Tile>> {
        let strips = |n: usize| -> Result<Vec<Strip>> {
            let windows = windows(n, self.side, scale);
            let strip = |window| Strip::new(cx, n * scale, window);
            windows.iter().map(strip).collect()
        };
        let (down, across) = (strips(self.size[0])?, strips(self.size[1])?);
        let tile = |down: &Strip, across: &Strip| Tile {
            down: down.clone(),
            across: across.clone(),
        };
        let row = |down| across.iter().map(move |across| tile(down, across));
        Ok(down.iter().flat_map(row).collect())
    }
}

/// The part of one axis that a tile covers: where it begins, and the weight of each of its pixels.
#[derive(Debug)]
struct Window {
    start: usize,
    weights: Vec<f64>,
}

/// Windows of `side` state pixels, spread evenly over an axis of `n`, in pixels of which `scale` make one state pixel.
fn windows(n: usize, side: usize, scale: usize) -> Vec<Window> {
    let side = side.min(n);
    let overlap = (side / OVERLAP).max(1);
    let count = match n > side {
        true => (n - overlap).div_ceil(side - overlap),
        false => 1,
    };
    let starts: Vec<usize> = (0..count)
        .map(|k| scale * (k * (n - side) / (count - 1).max(1)))
        .collect();
    let (side, ramp) = (side * scale, overlap * scale);
    // Rises from both ends over the overlap.
    let raw = |i: usize| (i + 1).min(side - i).min(ramp) as f64;
    let mut sums = vec![0.0; n * scale];
    for start in &starts {
        for i in 0..side {
            sums[start + i] += raw(i);
        }
    }
    let weights = |start: usize| (0..side).map(|i| raw(i) / sums[start + i]).collect();
    starts
        .iter()
        .map(|&start| Window {
            start,
            weights: weights(start),
        })
        .collect()
}

/// One tile: what it takes of an image, and what of its own goes back.
#[derive(Debug)]
pub struct Tile {
    down: Strip,
    across: Strip,
}

/// The matrices of one window, which all tiles of a row or column share.
#[derive(Clone, Debug)]
struct Strip {
    cut: Matrix,
    cut_transposed: Matrix,
    blend: Matrix,
    blend_transposed: Matrix,
}

impl Strip {
    fn new(cx: &Cx, n: usize, Window { start, weights }: &Window) -> Result<Self> {
        let cut = Banded::window(n, *start, &vec![1.0; weights.len()]);
        let share = Banded::window(n, *start, weights);
        Ok(Strip {
            cut: cut.upload(cx)?,
            cut_transposed: cut.transpose().upload(cx)?,
            blend: share.transpose().upload(cx)?,
            blend_transposed: share.upload(cx)?,
        })
    }
}

impl Tile {
    fn apply(&self, cx: &Cx, x: &Tensor, matrix: fn(&Strip) -> &Matrix) -> Result<Tensor> {
        Separable::of(matrix(&self.down), matrix(&self.across)).apply(cx, x)
    }

    /// The tile of an image.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when the image is not of the size the tile was made for.
    pub fn cut(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.apply(cx, x, |strip| &strip.cut)
    }

    fn cut_transposed(&self, cx: &Cx, dx: &Tensor) -> Result<Tensor> {
        self.apply(cx, dx, |strip| &strip.cut_transposed)
    }

    fn blend(&self, cx: &Cx, y: &Tensor) -> Result<Tensor> {
        self.apply(cx, y, |strip| &strip.blend)
    }

    fn blend_transposed(&self, cx: &Cx, dy: &Tensor) -> Result<Tensor> {
        self.apply(cx, dy, |strip| &strip.blend_transposed)
    }
}

/// `sum_k B_k map(C_k x)`, where `C` cuts a tile of `from` and `B` blends one of `to`.
fn tiled(
    cx: &Cx,
    [from, to]: [&[Tile]; 2],
    x: &Tensor,
    map: impl Fn(usize, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    sum(
        cx,
        from.iter().zip(to).enumerate().map(|(k, (from, to))| {
            let y = map(k, &from.cut(cx, x)?)?;
            to.blend(cx, &y)
        }),
    )
}

/// The cotangent of its `x` from that of its value: `sum_k C_k^T map_vjp(C_k x, B_k^T dy)`.
fn tiled_vjp(
    cx: &Cx,
    [from, to]: [&[Tile]; 2],
    x: &Tensor,
    dy: &Tensor,
    map_vjp: impl Fn(usize, &Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    sum(
        cx,
        from.iter().zip(to).enumerate().map(|(k, (from, to))| {
            let dy = to.blend_transposed(cx, dy)?;
            let dx = map_vjp(k, &from.cut(cx, x)?, &dy)?;
            from.cut_transposed(cx, &dx)
        }),
    )
}

/// Adds one after the other, in order.
fn sum(cx: &Cx, mut parts: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let first = parts.next().expect("a tiling has tiles")?;
    parts.try_fold(first, |sum, part| {
        combine::forward(cx, &[(1.0, &sum), (1.0, &part?)])
    })
}

/// A denoiser in tiles.
pub struct TiledDenoiser<'m> {
    /// The tiles of a state.
    pub tiles: &'m [Tile],
    /// The denoiser of each tile: one with a condition has each tile's part of it.
    pub parts: Vec<Box<dyn Denoiser + 'm>>,
}

impl TiledDenoiser<'_> {
    fn tiles(&self) -> [&[Tile]; 2] {
        [self.tiles; 2]
    }
}

impl Denoiser for TiledDenoiser<'_> {
    fn predict(&self, cx: &Cx, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        tiled(cx, self.tiles(), x, |k, x| self.parts[k].predict(cx, x, t))
    }

    fn predict_vjp<'a>(
        &'a self,
        cx: &'a Cx,
        x: &Tensor,
        t: &Tensor,
    ) -> Result<(Tensor, Pullback<'a>)> {
        let (kept, at) = (x.clone(), t.clone());
        let pull = move |dy: &Tensor| {
            tiled_vjp(cx, self.tiles(), &kept, dy, |k, x, dy| {
                let (_, pull) = self.parts[k].predict_vjp(cx, x, &at)?;
                pull(dy)
            })
        };
        Ok((self.predict(cx, x, t)?, Box::new(pull)))
    }
}

/// A codec in tiles.
pub struct TiledCodec<'m> {
    /// The codec of a tile.
    pub codec: Box<dyn Codec + 'm>,
    /// The tiles of a state.
    pub states: &'m [Tile],
    /// The tiles of its image.
    pub images: &'m [Tile],
}

impl Codec for TiledCodec<'_> {
    fn state_shape(&self, image: [usize; 4]) -> Result<[usize; 4]> {
        self.codec.state_shape(image)
    }

    fn decode(&self, cx: &Cx, x0: &Tensor) -> Result<Tensor> {
        tiled(cx, [self.states, self.images], x0, |_, x0| {
            self.codec.decode(cx, x0)
        })
    }

    fn decode_vjp<'a>(&'a self, cx: &'a Cx, x0: &Tensor) -> Result<(Tensor, Pullback<'a>)> {
        let kept = x0.clone();
        let pull = move |dy: &Tensor| {
            tiled_vjp(cx, [self.states, self.images], &kept, dy, |_, x0, dy| {
                let (_, pull) = self.codec.decode_vjp(cx, x0)?;
                pull(dy)
            })
        };
        Ok((self.decode(cx, x0)?, Box::new(pull)))
    }

    fn encode_vjp<'a>(&'a self, cx: &'a Cx, image: &Tensor) -> Result<(Tensor, Pullback<'a>)> {
        let tiles = [self.images, self.states];
        let z = tiled(cx, tiles, image, |_, image| {
            let (z, _) = self.codec.encode_vjp(&cx.forward_only(), image)?;
            Ok(z)
        })?;
        let kept = image.clone();
        let pull = move |dz: &Tensor| {
            tiled_vjp(cx, tiles, &kept, dz, |_, image, dz| {
                let (_, pull) = self.codec.encode_vjp(cx, image)?;
                pull(dz)
            })
        };
        Ok((z, Box::new(pull)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_every_pixel_sum_to_one_and_tiles_overlap() {
        for (n, side) in [(1, 2), (8, 8), (9, 8), (64, 8), (100, 24), (17, 16), (3, 2)] {
            for scale in [1, 8] {
                let windows = windows(n, side, scale);
                let mut sums = vec![0.0; n * scale];
                for window in &windows {
                    for (i, weight) in window.weights.iter().enumerate() {
                        assert!(*weight > 0.0);
                        sums[window.start + i] += weight;
                    }
                }
                let ones = sums.iter().all(|sum: &f64| (sum - 1.0).abs() < 1e-12);
                assert!(ones, "{n} {side} {scale}: {sums:?}");
                let overlap = scale * (side / OVERLAP).max(1);
                for pair in windows.windows(2) {
                    let end = pair[0].start + pair[0].weights.len();
                    assert!(end >= pair[1].start + overlap, "{n} {side} {scale}");
                }
            }
        }
    }
}
