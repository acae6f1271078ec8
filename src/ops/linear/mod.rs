//! Linear: `y = x w^T + bias + residual` over the last dimension.
//!
//! `x: [n, .., k]`, `w: [m, k]` as in the checkpoint, `bias: [m]` (in f32 beside 16-bit activations),
//! `residual: [n, .., m]`.
//! The cotangent of the residual is `dy` itself; of the input, `dx = dy w`; of the weights, [`wgrad`], `dw = dy^T x`.
//!
//! Three maps of one input and one shape, as of attention's queries, keys and values, are one launch either way: the parts
//! `y_p = x w_p^T + bias_p`, and `dx`, the sum of `dy_p w_p` over them, which is rounded once.
//!
//! A map of what a GEGLU made takes that's backward pass into its own: [`vjp_geglu`].

mod gated;
mod kernels;
mod native;
mod wgrad;

pub use gated::{VJP_GEGLU, takes_geglu, vjp_geglu};
pub use wgrad::{WGRAD, wgrad};

use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::tensor_cores::Tile;
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant, narrow};
use crate::runtime::Arg;
use crate::tensor::Tensor;

use kernels::{
    boxes, fits_boxes, fits_split, fits_tiles, is_large, is_wide, is_worth_splitting, products,
    split,
};

/// One launch: `samples` times `rows` rows of `k` in, `m` out, in each of its parts.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    rows: usize,
    k: usize,
    m: usize,
    /// One or three.
    parts: usize,
    /// How each part's weights are stored, where not as `x` is: see [`narrow`].
    narrow: [Option<DType>; 3],
    bias: bool,
    residual: bool,
    backward: bool,
    /// Backward through the GEGLU that made the input, too.
    geglu: bool,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let rows = self.samples * self.rows;
        let parts = |names: [&'static str; 3], spec: Spec| {
            let named = names.map(|name| Spec { name, ..spec });
            named.into_iter().take(self.parts)
        };
        let w = Spec::input("", self.m * self.k).fill(Fill::Normal(1.0 / (self.k as f64).sqrt()));
        let w = parts(["w", "w_2", "w_3"], w).zip(self.narrow);
        let w = w.map(|(w, narrow)| w.narrow(narrow));
        if self.backward {
            let dy = Spec::input("", rows * self.m);
            let width = if self.geglu { 2 * self.k } else { self.k };
            let mut args = vec![Spec::out("dx", rows * width)];
            args.extend(parts(["dy", "dy_2", "dy_3"], dy).chain(w));
            args.extend(self.geglu.then_some(Spec::input("x", rows * width)));
            return args;
        }
        let y = Spec::out("", rows * self.m);
        let bias = Spec::input("", self.m).wide().present(self.bias);
        let mut args: Vec<_> = parts(["y", "y_2", "y_3"], y).collect();
        args.push(Spec::input("x", rows * self.k));
        args.extend(w.chain(parts(["bias", "bias_2", "bias_3"], bias)));
        args.push(Spec::input("residual", rows * self.m).present(self.residual));
        args
    }

    fn flops(&self) -> u64 {
        let inputs = (self.samples * self.rows * self.k) as u64;
        let of_geglu = if self.geglu { 50 } else { 0 };
        inputs * (2 * (self.m * self.parts) as u64 + of_geglu)
    }

    fn is_mixed(&self) -> bool {
        self.narrow.iter().any(Option::is_some)
    }
}

/// Where the arguments are: the first of a part's, the others' after it.
impl Key {
    fn weights_at(&self) -> usize {
        1 + self.parts
    }

    fn bias_at(&self) -> usize {
        1 + 2 * self.parts
    }

    fn residual_at(&self) -> usize {
        1 + 3 * self.parts
    }
}

/// `y = x w^T + bias + residual`, for each part.
pub static FORWARD: Op<Key> = Op {
    name: "linear.forward",
    variants: &[
        Variant::on_hopper("tma_256", |key| {
            boxes("linear/fwd_6_tma", key, Tile::WidePatches)
        })
        .when(fits_boxes)
        .where_it_pays(is_wide),
        Variant::on_hopper("wgmma_256", |key| {
            products("linear/fwd_3_wgmma", key, Tile::WideWarpgroups)
        })
        .when(fits_tiles)
        .where_it_pays(is_wide),
        Variant::on_hopper("split_wgmma_128", |key| {
            split("linear/fwd_5_split_wgmma", key, Tile::Warpgroups)
        })
        .when(|key| fits_split(key, Tile::Warpgroups))
        .where_it_pays(|key| is_worth_splitting(key, Tile::Warpgroups)),
        Variant::on_hopper("tma_128", |key| {
            boxes("linear/fwd_6_tma", key, Tile::Patches)
        })
        .when(fits_boxes)
        .where_it_pays(is_large),
        Variant::on_hopper("wgmma_128", |key| {
            products("linear/fwd_3_wgmma", key, Tile::Warpgroups)
        })
        .when(fits_tiles)
        .where_it_pays(is_large),
        Variant::kernels("split_128", |key| {
            split("linear/fwd_4_split", key, Tile::Large)
        })
        .when(|key| fits_split(key, Tile::Large))
        .where_it_pays(|key| is_worth_splitting(key, Tile::Large)),
        Variant::kernels("tensor_cores_128", |key| {
            products("linear/fwd_2_tensor_cores", key, Tile::Large)
        })
        .when(fits_tiles)
        .where_it_pays(is_large),
        Variant::kernels("split_64", |key| {
            split("linear/fwd_4_split", key, Tile::Small)
        })
        .when(|key| fits_split(key, Tile::Small))
        .where_it_pays(|key| is_worth_splitting(key, Tile::Small)),
        Variant::kernels("tensor_cores_64", |key| {
            products("linear/fwd_2_tensor_cores", key, Tile::Small)
        })
        .when(fits_tiles),
        Variant::kernels("plain", |key| kernels::plain("linear/fwd_1_plain", key)),
        Variant::native("amx", native::forward_amx, native::forward_gemm::<f64>)
            .when(native::fits_amx),
        Variant::native("tiled", native::forward_tiled, native::forward_gemm::<f64>)
            .when(native::fits_tiled),
        Variant::native(
            "gemm",
            native::forward_gemm::<f32>,
            native::forward_gemm::<f64>,
        ),
        Variant::native(
            "plain",
            native::forward_plain::<f32>,
            native::forward_plain::<f64>,
        ),
    ],
    cases: || cases(false),
};

/// `dx = dy w`, the sum of the parts.
pub static VJP: Op<Key> = Op {
    name: "linear.vjp",
    variants: &[
        Variant::on_hopper("tma_256", |key| {
            boxes("linear/vjp_6_tma", key, Tile::WidePatches)
        })
        .when(fits_boxes)
        .where_it_pays(is_wide),
        Variant::on_hopper("wgmma_256", |key| {
            products("linear/vjp_3_wgmma", key, Tile::WideWarpgroups)
        })
        .when(fits_tiles)
        .where_it_pays(is_wide),
        Variant::on_hopper("split_wgmma_128", |key| {
            split("linear/vjp_5_split_wgmma", key, Tile::Warpgroups)
        })
        .when(|key| fits_split(key, Tile::Warpgroups))
        .where_it_pays(|key| is_worth_splitting(key, Tile::Warpgroups)),
        Variant::on_hopper("tma_128", |key| {
            boxes("linear/vjp_6_tma", key, Tile::Patches)
        })
        .when(fits_boxes)
        .where_it_pays(is_large),
        Variant::on_hopper("wgmma_128", |key| {
            products("linear/vjp_3_wgmma", key, Tile::Warpgroups)
        })
        .when(fits_tiles)
        .where_it_pays(is_large),
        Variant::kernels("split_128", |key| {
            split("linear/vjp_4_split", key, Tile::Large)
        })
        .when(|key| fits_split(key, Tile::Large))
        .where_it_pays(|key| is_worth_splitting(key, Tile::Large)),
        Variant::kernels("tensor_cores_128", |key| {
            products("linear/vjp_2_tensor_cores", key, Tile::Large)
        })
        .when(fits_tiles)
        .where_it_pays(is_large),
        Variant::kernels("split_64", |key| {
            split("linear/vjp_4_split", key, Tile::Small)
        })
        .when(|key| fits_split(key, Tile::Small))
        .where_it_pays(|key| is_worth_splitting(key, Tile::Small)),
        Variant::kernels("tensor_cores_64", |key| {
            products("linear/vjp_2_tensor_cores", key, Tile::Small)
        })
        .when(fits_tiles),
        Variant::kernels("plain", |key| kernels::plain("linear/vjp_1_plain", key)),
        Variant::native("amx", native::vjp_amx, native::vjp_gemm::<f64>).when(native::fits_amx),
        Variant::native("tiled", native::vjp_tiled, native::vjp_gemm::<f64>)
            .when(native::fits_tiled),
        Variant::native("gemm", native::vjp_gemm::<f32>, native::vjp_gemm::<f64>),
        Variant::native("plain", native::vjp_plain::<f32>, native::vjp_plain::<f64>),
    ],
    cases: || cases(true),
};

fn cases(backward: bool) -> Vec<Key> {
    let sizes = [
        (1, 1, 1, 1),
        (2, 1, 33, 31),
        (3, 77, 32, 40),
        (1, 113, 203, 65),
        (2, 300, 64, 64),
        (2, 70, 136, 88),
        (1, 130, 24, 200),
        // More than one tile of each kind either way, and more steps than stages.
        (2, 130, 264, 280),
    ];
    // Deep enough to be cut: into two chunks, which end amid steps, and into three.
    let cut = if backward {
        [(2, 35, 72, 3720), (1, 5, 8, 5544)]
    } else {
        [(2, 35, 3720, 72), (1, 5, 5544, 8)]
    };
    // Parts of one step, of steps that are not whole, and of more than there are stages.
    let three = [
        (2, 3, 33, 7),
        (1, 5, 16, 8),
        (3, 77, 32, 40),
        (2, 70, 136, 328),
    ];
    let sizes = sizes.into_iter().chain(cut).map(|size| (1, size));
    let sizes = sizes.chain(three.map(|size| (3, size)));
    let key = |(i, (parts, (samples, rows, k, m)))| Key {
        dtype: DType::F32,
        samples,
        rows,
        k,
        m,
        parts,
        narrow: [None; 3],
        bias: i % 2 == 0,
        residual: i % 3 == 0 && parts == 1 && !backward,
        backward,
        geglu: false,
    };
    let keys: Vec<_> = sizes.enumerate().map(key).collect();
    // In 16 bits: few rows, rows of every kind of block, and parts of which one is not.
    let (f16, bf16) = (Some(DType::F16), Some(DType::Bf16));
    let mixed = [
        (1, [f16; 3]),
        (1, [bf16; 3]),
        (3, [f16; 3]),
        (3, [bf16; 3]),
        (7, [bf16; 3]),
        (7, [f16; 3]),
        (13, [f16, None, bf16]),
    ];
    let stored = |(i, narrow): (usize, [Option<DType>; 3])| {
        let key = keys[i].clone();
        let parts = key.parts;
        let narrow = [0, 1, 2].map(|part| narrow[part].filter(|_| part < parts));
        Key { narrow, ..key }
    };
    let mixed: Vec<_> = mixed.into_iter().map(stored).collect();
    keys.into_iter().chain(mixed).collect()
}

/// `y = x w^T + bias + residual`.
///
/// # Errors
/// [`Error::Shape`] when `x`'s last dimension is not `w`'s second, or `bias` or `residual` do not fit.
pub fn forward(
    cx: &Cx,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let key = key(x, &[w], 1, bias.is_some(), residual.is_some())?;
    let y = cx.empty(x.shape().with_channels(key.m))?;
    FORWARD.launch(
        cx,
        &key,
        &[
            Arg::Out(&y),
            Arg::In(x),
            Arg::In(w),
            bias.into(),
            residual.into(),
        ],
    )?;
    Ok(y)
}

/// `dx = dy w`.
///
/// # Errors
/// [`Error::Shape`] when `dy`'s last dimension is not `w`'s first.
pub fn vjp(cx: &Cx, w: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let key = key(dy, &[w], 0, false, false)?;
    let dx = cx.empty(dy.shape().with_channels(key.k))?;
    let args = [Arg::Out(&dx), Arg::In(dy), Arg::In(w)];
    VJP.launch(cx, &key, &args)?;
    Ok(dx)
}

/// `y_p = x w_p^T + bias_p` of three maps.
///
/// # Errors
/// [`Error::Shape`] when `x`'s last dimension is not each `w`'s second, their shapes differ, or a bias does not fit.
pub fn forward_three(
    cx: &Cx,
    x: &Tensor,
    w: [&Tensor; 3],
    bias: [Option<&Tensor>; 3],
) -> Result<[Tensor; 3]> {
    let key = key(x, &w, 1, bias.iter().any(Option::is_some), false)?;
    let y = || cx.empty(x.shape().with_channels(key.m));
    let y = [y()?, y()?, y()?];
    let maps = w.map(Arg::In).into_iter().chain(bias.map(Arg::from));
    let args = y.each_ref().map(Arg::Out).into_iter();
    let args = args.chain([Arg::In(x)]).chain(maps).chain([Arg::Absent]);
    FORWARD.launch(cx, &key, &args.collect::<Vec<_>>())?;
    Ok(y)
}

/// `dx`, the sum of `dy_p w_p` of three maps.
///
/// # Errors
/// [`Error::Shape`] when a `dy`'s last dimension is not its `w`'s first, or shapes differ.
pub fn vjp_three(cx: &Cx, w: [&Tensor; 3], dy: [&Tensor; 3]) -> Result<Tensor> {
    let key = key(dy[0], &w, 0, false, false)?;
    let dx = cx.empty(dy[0].shape().with_channels(key.k))?;
    let [dy, w] = [dy, w].map(|parts| parts.map(Arg::In).into_iter());
    let args: Vec<_> = [Arg::Out(&dx)].into_iter().chain(dy).chain(w).collect();
    VJP.launch(cx, &key, &args)?;
    Ok(dx)
}

/// The key of a launch whose input meets dimension `along` of every one of `w`.
fn key(x: &Tensor, w: &[&Tensor], along: usize, bias: bool, residual: bool) -> Result<Key> {
    let [m, k] = *w[0].dims() else {
        return Err(Error::shape("linear, w", "[m, k]", w[0].shape()));
    };
    if let Some(other) = w.iter().find(|w| w.dims() != [m, k]) {
        let want = format!("[{m}, {k}], as the first");
        return Err(Error::shape("linear, w", want, other.shape()));
    }
    let want = [m, k][along];
    if want == 0 || x.shape().channels() != want || x.dims().len() < 2 {
        return Err(Error::shape(
            "linear",
            format!("[n, .., {want}]"),
            x.shape(),
        ));
    }
    let samples = x.shape().samples();
    let rows = x.shape().per_sample() / want;
    let of = |part: usize| w.get(part).and_then(|w| narrow(x.dtype(), w.dtype()));
    Ok(Key {
        dtype: x.dtype(),
        samples,
        rows,
        k,
        m,
        parts: w.len(),
        narrow: [0, 1, 2].map(of),
        bias,
        residual,
        backward: along == 0,
        geglu: false,
    })
}
