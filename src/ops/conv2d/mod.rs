//! 2-D convolution, channels last: `y[p, o] = bias[o] + shift[n, o] + residual[p, o] +
//! sum over taps and inputs of x[source(p, tap), i] w[tap, i, o]`, zero outside the image.
//!
//! `x: [n, h, w, i]`, `w: [k, k, i, o]` (repacked at load), `bias: [o]`, `shift: [n, o]` (the time
//! embedding), `residual, y: [n, ho, wo, o]`; `bias`, and on request `y`, in f32 beside 16-bit
//! activations. The cotangent of the input is `dx[q, i] = sum over taps of dy[p, o] w[tap, i, o]` where
//! `source(p, tap) = q`; that of the weights, [`wgrad`], `dw[tap, i, o] = sum over p of x[source(p, tap), i] dy[p, o]`.
//!
//! The map from `dy` to `dx` is also the forward pass of a [transposed] convolution, which may add a bias, `[i]`; its
//! own vjp is [`forward`]. At stride s a pixel of `dx` meets only every s-th tap on each axis: the pixels that meet the
//! same ones are a phase.
//!
//! What a group norm reads next may come with its moments, see [`Measured`]: from ops of their own, whose variants are those
//! that have them at hand when they store. So may a forward pass take an image that a norm has yet to be applied to, see
//! [`Normed`](crate::ops::conv_norm::Normed): it is `u = silu(x scale + shift)`, by the sample and channel, that meets the weights.
//! And a backward pass may leave the sums that the norm before it begins its own with, see [`Summed`](crate::ops::conv_norm::Summed),
//! and take a cotangent that has yet to go through the norm behind it, see [`Through`](crate::ops::conv_norm::Through): it is `d = du
//! scale + x slope + offset`, by the sample and channel, with `du = dy` times the slope of SiLU at `x scale + shift`, that meets the
//! weights. Or it goes on through the norm before it, see [`vjp_normed`].

mod cases;
mod gathered;
mod kernels;
mod moments;
mod normed;
mod plain;
mod summed;
mod three_outputs;
mod through;
mod tiled;
mod vjp_normed;
mod wgrad;

pub use moments::{FORWARD_MOMENTS, VJP_MOMENTS};
pub use normed::{FORWARD_NORMED, FORWARD_NORMED_MOMENTS, forward_normed, takes_norm};
pub use summed::{SummedKey, VJP_SUMMED, vjp_summed};
pub use through::{VJP_THROUGH, VJP_THROUGH_SUMMED, takes_through, vjp_through};
pub use vjp_normed::{VJP_NORMED, VjpNormedKey, vjp_normed};
pub use wgrad::{WGRAD, wgrad};

use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::conv_norm::Measured;
use crate::ops::tensor_cores::Tile;
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant, narrow};
use crate::runtime::Arg;
use crate::tensor::Tensor;
use normed::stored_in;

/// Stride and zero padding of a square kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Distance of the output pixels in the input.
    pub stride: usize,
    /// Zero rows above and columns to the left.
    pub before: usize,
    /// Zero rows below and columns to the right.
    pub after: usize,
}

impl Geometry {
    /// Stride 1, the output as large as the input, for an odd kernel `k`.
    pub const fn same(k: usize) -> Self {
        Geometry {
            stride: 1,
            before: k / 2,
            after: k / 2,
        }
    }

    fn out(self, size: usize, k: usize) -> Option<usize> {
        let padded = size.checked_add(self.before)?.checked_add(self.after)?;
        Some(padded.checked_sub(k)?.checked_div(self.stride)? + 1)
    }
}

/// What is added to the products, all optional, and how the sum is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Per output channel, `[o]`.
    pub bias: Option<&'a Tensor>,
    /// Per sample and output channel, `[n, o]`.
    pub shift: Option<&'a Tensor>,
    /// Per output element.
    pub residual: Option<&'a Tensor>,
    /// The output in f32 beside 16-bit activations: what leaves a network unrounded.
    pub wide: bool,
}

/// What is computed: `y`, `dx` or `dw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Vjp,
    Wgrad,
}

/// One launch. `x` sizes are the input's, `y` sizes the output's, in every direction.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    x: [usize; 2],
    y: [usize; 2],
    inputs: usize,
    outputs: usize,
    k: usize,
    geometry: Geometry,
    bias: bool,
    shift: bool,
    residual: bool,
    wide: bool,
    direction: Direction,
    /// Groups of channels of the result whose moments are written too; 0: none are.
    groups: usize,
    /// Forward, the input is to be normalised, backward, the cotangent to go through a norm; and rounded to this type, as the
    /// norm would store it.
    normed: Option<DType>,
    /// How weights are stored, where not as activations are: see [`narrow`].
    narrow: Option<DType>,
}

/// Pixels of the input that meet the same taps, because their rows and columns leave the same remainders by the stride.
struct Phase {
    /// Ascending.
    pixels: Vec<usize>,
    /// The taps at which [`Key::target`] may find a pixel.
    taps: Vec<usize>,
}

impl Key {
    /// The same in a type that tensor cores take.
    fn half(&self) -> Self {
        Key {
            dtype: DType::Bf16,
            ..self.clone()
        }
    }

    fn taps(&self) -> usize {
        self.k * self.k
    }

    /// The input pixel that output pixel `p` meets at `tap`, if it is inside the image.
    #[inline]
    fn source(&self, p: usize, tap: usize) -> Option<usize> {
        let g = self.geometry;
        let row = (p / self.y[1] * g.stride + tap / self.k).checked_sub(g.before)?;
        let col = (p % self.y[1] * g.stride + tap % self.k).checked_sub(g.before)?;
        (row < self.x[0] && col < self.x[1]).then_some(row * self.x[1] + col)
    }

    /// The output pixel that meets input pixel `q` at `tap`, if there is one.
    #[inline]
    fn target(&self, q: usize, tap: usize) -> Option<usize> {
        let g = self.geometry;
        let row = (q / self.x[1] + g.before).checked_sub(tap / self.k)?;
        let col = (q % self.x[1] + g.before).checked_sub(tap % self.k)?;
        if !row.is_multiple_of(g.stride) || !col.is_multiple_of(g.stride) {
            return None;
        }
        let (row, col) = (row / g.stride, col / g.stride);
        (row < self.y[0] && col < self.y[1]).then_some(row * self.y[1] + col)
    }

    /// The phases of a backward pass: `stride` on each axis.
    fn phases(&self) -> Vec<Phase> {
        let Geometry { stride, before, .. } = self.geometry;
        let phase = |number: usize| {
            let (down, across) = (number / stride, number % stride);
            let rows = (down..self.x[0]).step_by(stride);
            let line = |row| {
                (across..self.x[1])
                    .step_by(stride)
                    .map(move |col| row * self.x[1] + col)
            };
            let meets = |first: usize, tap: usize| (first + before) % stride == tap % stride;
            let taps = (0..self.taps())
                .filter(|tap| meets(down, tap / self.k) && meets(across, tap % self.k));
            Phase {
                pixels: rows.flat_map(line).collect(),
                taps: taps.collect(),
            }
        };
        (0..stride * stride).map(phase).collect()
    }
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
        self.normed = self.normed.map(|stored| stored_in(dtype, stored));
    }

    fn args(&self) -> Vec<Spec> {
        let mut args = self.args_alone();
        if self.groups > 0 {
            args.insert(1, moments::spec(self));
        }
        args
    }

    fn flops(&self) -> u64 {
        let positions = self.samples * self.y[0] * self.y[1];
        2 * (positions * self.taps() * self.inputs * self.outputs) as u64
    }

    fn is_mixed(&self) -> bool {
        self.narrow.is_some()
    }
}

impl Key {
    /// The arguments without moments.
    fn args_alone(&self) -> Vec<Spec> {
        let x = self.samples * self.x[0] * self.x[1] * self.inputs;
        let y = self.samples * self.y[0] * self.y[1] * self.outputs;
        let fan_in = self.taps() * self.inputs;
        let w = Spec::input("w", fan_in * self.outputs)
            .fill(Fill::Normal(1.0 / (fan_in as f64).sqrt()))
            .narrow(self.narrow);
        match self.direction {
            Direction::Forward => {}
            Direction::Vjp => {
                let bias = Spec::input("bias", self.inputs).wide().present(self.bias);
                let mut args = vec![Spec::out("dx", x), Spec::input("dy", y)];
                if self.normed.is_some() {
                    args.extend(through::specs(self));
                }
                args.extend([w, bias]);
                return args;
            }
            Direction::Wgrad => {
                let dw = Spec::out("dw", w.len).wide();
                return vec![dw, Spec::input("x", x), Spec::input("dy", y)];
            }
        }
        let out = Spec::out("y", y);
        let out = if self.wide { out.wide() } else { out };
        let mut args = vec![out, Spec::input("x", x)];
        if self.normed.is_some() {
            args.extend(normed::specs(self));
        }
        args.extend([
            w,
            Spec::input("bias", self.outputs).wide().present(self.bias),
            Spec::input("shift", self.samples * self.outputs).present(self.shift),
            Spec::input("residual", y).present(self.residual),
        ]);
        args
    }
}

/// `y` from `x`.
pub static FORWARD: Op<Key> = Op {
    name: "conv2d.forward",
    variants: &[
        Variant::kernels("three_outputs", three_outputs::forward)
            .when(three_outputs::fits)
            .where_it_pays(three_outputs::has_enough_tiles),
        Variant::kernels("few_outputs", kernels::forward_few_outputs)
            .when(kernels::fits_few_outputs),
        Variant::on_hopper("halo_128", |key| {
            kernels::patches("conv2d/fwd_9_halo", key, Tile::Halo)
        })
        .when(kernels::fits_halo)
        .where_it_pays(kernels::is_worth_a_halo),
        Variant::on_hopper("tma_256", |key| {
            kernels::patches("conv2d/fwd_8_tma", key, Tile::WidePatches)
        })
        .when(kernels::fits_patches)
        .where_it_pays(kernels::is_wide),
        Variant::on_hopper("wgmma_256", |key| {
            kernels::products("conv2d/fwd_5_wgmma", key, Tile::WideWarpgroups)
        })
        .when(kernels::fits_tiles)
        .where_it_pays(kernels::is_wide),
        Variant::on_hopper("split_wgmma_128", |key| {
            kernels::split("conv2d/fwd_7_split_wgmma", key, Tile::Warpgroups)
        })
        .when(|key| kernels::fits_split(key, Tile::Warpgroups))
        .where_it_pays(|key| kernels::is_worth_splitting(key, Tile::Warpgroups)),
        Variant::on_hopper("tma_128", |key| {
            kernels::patches("conv2d/fwd_8_tma", key, Tile::Patches)
        })
        .when(kernels::fits_patches)
        .where_it_pays(kernels::is_large),
        Variant::on_hopper("wgmma_128", |key| {
            kernels::products("conv2d/fwd_5_wgmma", key, Tile::Warpgroups)
        })
        .when(kernels::fits_tiles)
        .where_it_pays(kernels::is_large),
        Variant::kernels("split_128", |key| {
            kernels::split("conv2d/fwd_6_split", key, Tile::Large)
        })
        .when(|key| kernels::fits_split(key, Tile::Large))
        .where_it_pays(|key| kernels::is_worth_splitting(key, Tile::Large)),
        Variant::kernels("tensor_cores_128", |key| {
            kernels::products("conv2d/fwd_2_tensor_cores", key, Tile::Large)
        })
        .when(kernels::fits_tiles)
        .where_it_pays(kernels::is_large),
        Variant::kernels("split_64", |key| {
            kernels::split("conv2d/fwd_6_split", key, Tile::Small)
        })
        .when(|key| kernels::fits_split(key, Tile::Small))
        .where_it_pays(|key| kernels::is_worth_splitting(key, Tile::Small)),
        Variant::kernels("tensor_cores_64", |key| {
            kernels::products("conv2d/fwd_2_tensor_cores", key, Tile::Small)
        })
        .when(kernels::fits_tiles),
        Variant::kernels("eight_outputs", kernels::forward_eight_outputs)
            .when(kernels::fits_eight_outputs),
        Variant::kernels("plain", kernels::forward_plain),
        Variant::native("amx", tiled::forward_amx, gathered::forward::<f64>).when(tiled::fits_amx),
        Variant::native("tiled", tiled::forward, gathered::forward::<f64>).when(tiled::fits),
        Variant::native(
            "gathered_gemm",
            gathered::forward::<f32>,
            gathered::forward::<f64>,
        ),
        Variant::native("plain", plain::forward::<f32>, plain::forward::<f64>),
    ],
    cases: || cases::of(Direction::Forward),
};

/// `dx` from `dy`; with a bias, a transposed convolution.
pub static VJP: Op<Key> = Op {
    name: "conv2d.vjp",
    variants: &[
        Variant::kernels("few_inputs", kernels::vjp_few_inputs).when(kernels::fits_few_inputs),
        Variant::kernels("three_outputs", three_outputs::vjp).when(three_outputs::fits),
        Variant::on_hopper("halo_128", |key| {
            kernels::patches("conv2d/vjp_10_halo", key, Tile::Halo)
        })
        .when(kernels::fits_halo)
        .where_it_pays(kernels::is_worth_a_halo),
        Variant::on_hopper("tma_256", |key| {
            kernels::patches("conv2d/vjp_9_tma", key, Tile::WidePatches)
        })
        .when(kernels::fits_patches)
        .where_it_pays(kernels::is_wide),
        Variant::on_hopper("phases_wgmma_256", |key| {
            kernels::vjp_phases_wgmma(key, Tile::WideWarpgroups)
        })
        .when(kernels::fits_phases)
        .where_it_pays(kernels::is_wide),
        Variant::on_hopper("phases_wgmma_128", |key| {
            kernels::vjp_phases_wgmma(key, Tile::Warpgroups)
        })
        .when(kernels::fits_phases)
        .where_it_pays(kernels::is_large),
        Variant::kernels("phases_128", |key| kernels::vjp_phases(key, Tile::Large))
            .when(kernels::fits_phases)
            .where_it_pays(kernels::is_large),
        Variant::kernels("phases_64", |key| kernels::vjp_phases(key, Tile::Small))
            .when(kernels::fits_phases),
        Variant::on_hopper("wgmma_256", |key| {
            kernels::products("conv2d/vjp_5_wgmma", key, Tile::WideWarpgroups)
        })
        .when(kernels::fits_tiles)
        .where_it_pays(kernels::is_wide),
        Variant::on_hopper("split_wgmma_128", |key| {
            kernels::split("conv2d/vjp_8_split_wgmma", key, Tile::Warpgroups)
        })
        .when(|key| kernels::fits_split(key, Tile::Warpgroups))
        .where_it_pays(|key| kernels::is_worth_splitting(key, Tile::Warpgroups)),
        Variant::on_hopper("tma_128", |key| {
            kernels::patches("conv2d/vjp_9_tma", key, Tile::Patches)
        })
        .when(kernels::fits_patches)
        .where_it_pays(kernels::is_large),
        Variant::on_hopper("wgmma_128", |key| {
            kernels::products("conv2d/vjp_5_wgmma", key, Tile::Warpgroups)
        })
        .when(kernels::fits_tiles)
        .where_it_pays(kernels::is_large),
        Variant::kernels("split_128", |key| {
            kernels::split("conv2d/vjp_7_split", key, Tile::Large)
        })
        .when(|key| kernels::fits_split(key, Tile::Large))
        .where_it_pays(|key| kernels::is_worth_splitting(key, Tile::Large)),
        Variant::kernels("tensor_cores_128", |key| {
            kernels::products("conv2d/vjp_2_tensor_cores", key, Tile::Large)
        })
        .when(kernels::fits_tiles)
        .where_it_pays(kernels::is_large),
        Variant::kernels("split_64", |key| {
            kernels::split("conv2d/vjp_7_split", key, Tile::Small)
        })
        .when(|key| kernels::fits_split(key, Tile::Small))
        .where_it_pays(|key| kernels::is_worth_splitting(key, Tile::Small)),
        Variant::kernels("tensor_cores_64", |key| {
            kernels::products("conv2d/vjp_2_tensor_cores", key, Tile::Small)
        })
        .when(kernels::fits_tiles),
        Variant::kernels("plain", kernels::vjp_plain),
        Variant::native("amx", tiled::vjp_amx, gathered::vjp::<f64>).when(tiled::fits_vjp_amx),
        Variant::native("tiled", tiled::vjp, gathered::vjp::<f64>).when(tiled::fits_vjp),
        Variant::native("gathered_gemm", gathered::vjp::<f32>, gathered::vjp::<f64>),
        Variant::native("plain", plain::vjp::<f32>, plain::vjp::<f64>),
    ],
    cases: || cases::of(Direction::Vjp),
};

/// `y` from `x: [n, h, w, i]` and `w: [k, k, i, o]`.
///
/// # Errors
/// [`Error::Shape`] when the channels differ or the image is smaller than the kernel.
pub fn forward(
    cx: &Cx,
    x: &Tensor,
    w: &Tensor,
    geometry: Geometry,
    add: Epilogue<'_>,
) -> Result<Tensor> {
    Ok(forward_measured(cx, x, w, geometry, add, None)?.x)
}

/// The same, and the moments of `groups` of the channels, where the variant that is taken anyway has them at hand.
///
/// # Errors
/// As [`forward`].
pub fn forward_measured(
    cx: &Cx,
    x: &Tensor,
    w: &Tensor,
    geometry: Geometry,
    add: Epilogue<'_>,
    groups: Option<usize>,
) -> Result<Measured> {
    let key = forward_key(x, w, geometry, add, groups)?;
    let y = result(cx, &key)?;
    let inputs = [
        Arg::In(x),
        Arg::In(w),
        add.bias.into(),
        add.shift.into(),
        add.residual.into(),
    ];
    moments::launch(cx, [&FORWARD, &FORWARD_MOMENTS], key, y, &inputs)
}

/// The key of a forward pass.
fn forward_key(
    x: &Tensor,
    w: &Tensor,
    geometry: Geometry,
    add: Epilogue<'_>,
    groups: Option<usize>,
) -> Result<Key> {
    let [samples, height, width, channels] = x.nhwc("conv2d")?;
    let [k, _, inputs, outputs] = w.nhwc("conv2d, w")?;
    let sizes = geometry.out(height, k).zip(geometry.out(width, k));
    let Some((ho, wo)) = sizes.filter(|_| channels == inputs) else {
        let want =
            format!("[n, h, w, {inputs}] with h and w of at least {k} after padding {geometry:?}");
        return Err(Error::shape("conv2d", want, x.shape()));
    };
    Ok(Key {
        dtype: x.dtype(),
        samples,
        x: [height, width],
        y: [ho, wo],
        inputs,
        outputs,
        k,
        geometry,
        bias: add.bias.is_some(),
        shift: add.shift.is_some(),
        residual: add.residual.is_some(),
        wide: add.wide,
        direction: Direction::Forward,
        groups: groups.unwrap_or(0),
        normed: None,
        narrow: narrow(x.dtype(), w.dtype()),
    })
}

/// The output of a forward pass.
fn result(cx: &Cx, key: &Key) -> Result<Tensor> {
    let shape = [key.samples, key.y[0], key.y[1], key.outputs];
    if key.wide {
        cx.empty_wide(shape)
    } else {
        cx.empty(shape)
    }
}

/// `dx: [n, height, width, i]` from `dy: [n, ho, wo, o]`, for an input that was `size = [height, width]`.
///
/// # Errors
/// [`Error::Shape`] when `dy` is not what a forward pass over that size returns.
pub fn vjp(
    cx: &Cx,
    w: &Tensor,
    geometry: Geometry,
    size: [usize; 2],
    dy: &Tensor,
) -> Result<Tensor> {
    transposed(cx, w, geometry, size, dy, None)
}

/// The transposed convolution: what [`vjp`] makes of `dy`, and `bias: [i]`.
///
/// # Errors
/// As [`vjp`].
pub fn transposed(
    cx: &Cx,
    w: &Tensor,
    geometry: Geometry,
    size: [usize; 2],
    dy: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    Ok(transposed_measured(cx, w, geometry, size, dy, bias, None)?.x)
}

/// The same, and the moments of `groups` of the channels, as [`forward_measured`].
///
/// # Errors
/// As [`vjp`].
pub fn transposed_measured(
    cx: &Cx,
    w: &Tensor,
    geometry: Geometry,
    size: [usize; 2],
    dy: &Tensor,
    bias: Option<&Tensor>,
    groups: Option<usize>,
) -> Result<Measured> {
    let key = Key {
        bias: bias.is_some(),
        groups: groups.unwrap_or(0),
        ..vjp_key(w, geometry, size, dy)?
    };
    let dx = cx.empty([key.samples, size[0], size[1], key.inputs])?;
    let inputs = [Arg::In(dy), Arg::In(w), bias.into()];
    moments::launch(cx, [&VJP, &VJP_MOMENTS], key, dx, &inputs)
}

/// The key of a backward pass.
fn vjp_key(w: &Tensor, geometry: Geometry, size: [usize; 2], dy: &Tensor) -> Result<Key> {
    let [samples, ho, wo, channels] = dy.nhwc("conv2d.vjp")?;
    let [k, _, inputs, outputs] = w.nhwc("conv2d.vjp, w")?;
    if channels != outputs || size.map(|s| geometry.out(s, k)) != [Some(ho), Some(wo)] {
        let want = format!("[n, .., .., {outputs}] for an input of {size:?}");
        return Err(Error::shape("conv2d.vjp", want, dy.shape()));
    }
    Ok(Key {
        dtype: dy.dtype(),
        samples,
        x: size,
        y: [ho, wo],
        inputs,
        outputs,
        k,
        geometry,
        bias: false,
        shift: false,
        residual: false,
        wide: false,
        direction: Direction::Vjp,
        groups: 0,
        normed: None,
        narrow: narrow(dy.dtype(), w.dtype()),
    })
}
