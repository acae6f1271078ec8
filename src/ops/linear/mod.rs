//! Linear: `y = x w^T + bias + residual` over the last dimension.
//!
//! `x: [n, .., k]`, `w: [m, k]` as in the checkpoint, `bias: [m]` (in f32 beside 16-bit activations),
//! `residual: [n, .., m]`.
//! The cotangent of the residual is `dy` itself; of the input, `dx = dy w`, and `dx = dy w + residual` where others have
//! reached it before; of the weights, [`wgrad`], `dw = dy^T x`.

mod wgrad;

pub use wgrad::{WGRAD, wgrad};

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::tensor_cores::Tile;
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::gemm::{Mat, gemm};
use crate::runtime::kernel::{Launch, Plan, Ptr, TensorMap};
use crate::runtime::native::NativeArgs;
use crate::runtime::product::{self, Product};
use crate::tensor::Tensor;

/// One launch: `samples` times `rows` rows of `k` in, `m` out.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    rows: usize,
    k: usize,
    m: usize,
    bias: bool,
    residual: bool,
    backward: bool,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn with_dtype(&self, dtype: DType) -> Self {
        Key {
            dtype,
            ..self.clone()
        }
    }

    fn args(&self) -> Vec<Spec> {
        let rows = self.samples * self.rows;
        let w = Spec::input("w", self.m * self.k).fill(Fill::Normal(1.0 / (self.k as f64).sqrt()));
        if self.backward {
            return vec![
                Spec::out("dx", rows * self.k),
                Spec::input("dy", rows * self.m),
                w,
                Spec::input("residual", rows * self.k).present(self.residual),
            ];
        }
        vec![
            Spec::out("y", rows * self.m),
            Spec::input("x", rows * self.k),
            w,
            Spec::input("bias", self.m).wide().present(self.bias),
            Spec::input("residual", rows * self.m).present(self.residual),
        ]
    }

    fn flops(&self) -> u64 {
        2 * (self.samples * self.rows * self.k * self.m) as u64
    }
}

/// `y = x w^T + bias + residual`.
pub static FORWARD: Op<Key> = Op {
    name: "linear.forward",
    variants: &[
        Variant::on_hopper("tma_256", |key| {
            boxes("linear/fwd_6_tma", key, Tile::WidePatches)
        })
        .when(fits_tiles)
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
        .when(fits_tiles)
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
        Variant::kernels("plain", |key| {
            let rows = key.samples * key.rows;
            Launch::each("linear/fwd_1_plain", key.dtype, rows * key.m)
                .ints([rows, key.k, key.m])
                .into()
        }),
        Variant::native("amx", forward_amx, forward_gemm::<f64>).when(fits_amx),
        Variant::native("tiled", forward_tiled, forward_gemm::<f64>).when(fits_tiled),
        Variant::native("gemm", forward_gemm::<f32>, forward_gemm::<f64>),
        Variant::native("plain", forward_plain::<f32>, forward_plain::<f64>),
    ],
    cases: || cases(false),
};

/// `dx = dy w + residual`.
pub static VJP: Op<Key> = Op {
    name: "linear.vjp",
    variants: &[
        Variant::on_hopper("tma_256", |key| {
            boxes("linear/vjp_6_tma", key, Tile::WidePatches)
        })
        .when(fits_tiles)
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
        .when(fits_tiles)
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
        Variant::kernels("plain", |key| {
            let rows = key.samples * key.rows;
            Launch::each("linear/vjp_1_plain", key.dtype, rows * key.k)
                .ints([rows, key.k, key.m])
                .into()
        }),
        Variant::native("amx", vjp_amx, vjp_gemm::<f64>).when(fits_amx),
        Variant::native("tiled", vjp_tiled, vjp_gemm::<f64>).when(fits_tiled),
        Variant::native("gemm", vjp_gemm::<f32>, vjp_gemm::<f64>),
        Variant::native("plain", vjp_plain::<f32>, vjp_plain::<f64>),
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
    let key = |(i, (samples, rows, k, m)): (usize, (usize, usize, usize, usize))| Key {
        dtype: DType::F32,
        samples,
        rows,
        k,
        m,
        bias: i % 2 == 0,
        residual: i % 3 == 0,
        backward,
    };
    sizes.into_iter().chain(cut).enumerate().map(key).collect()
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
    let key = key(x, w, 1, bias.is_some(), residual.is_some())?;
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

/// `dx = dy w + residual`.
///
/// # Errors
/// [`Error::Shape`] when `dy`'s last dimension is not `w`'s first, or `residual` does not fit.
pub fn vjp(cx: &Cx, w: &Tensor, dy: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let key = key(dy, w, 0, false, residual.is_some())?;
    let dx = cx.empty(dy.shape().with_channels(key.k))?;
    let args = [Arg::Out(&dx), Arg::In(dy), Arg::In(w), residual.into()];
    VJP.launch(cx, &key, &args)?;
    Ok(dx)
}

/// The key of a launch whose input meets dimension `along` of `w`.
fn key(x: &Tensor, w: &Tensor, along: usize, bias: bool, residual: bool) -> Result<Key> {
    let [m, k] = *w.dims() else {
        return Err(Error::shape("linear, w", "[m, k]", w.shape()));
    };
    let want = w.dims()[along];
    if want == 0 || x.shape().channels() != want || x.dims().len() < 2 {
        return Err(Error::shape(
            "linear",
            format!("[n, .., {want}]"),
            x.shape(),
        ));
    }
    let samples = x.shape().samples();
    let rows = x.shape().per_sample() / want;
    Ok(Key {
        dtype: x.dtype(),
        samples,
        rows,
        k,
        m,
        bias,
        residual,
        backward: along == 0,
    })
}

/// 16-byte pieces of the rows on either side.
fn fits_tiles(key: &Key) -> bool {
    key.dtype.is_half() && key.k.is_multiple_of(8) && key.m.is_multiple_of(8)
}

fn is_large(key: &Key) -> bool {
    Tile::is_large(of_sample(key))
}

fn is_wide(key: &Key) -> bool {
    Tile::is_wide(of_sample(key))
}

/// One sample's rows and columns of the output.
fn of_sample(key: &Key) -> [usize; 2] {
    [key.rows, if key.backward { key.k } else { key.m }]
}

/// Tiles of the whole depth.
fn products(module: &'static str, key: &Key, tile: Tile) -> Plan {
    product(module, key, tile).into()
}

fn product(module: &'static str, key: &Key, tile: Tile) -> Launch {
    let [rows, width] = of_sample(key);
    let rows = key.samples * rows;
    tile.launch(module, key.dtype, [rows, width])
        .ints([rows, key.k, key.m])
}

/// Tiles of the whole depth, whose operands the copy engine brings: 128 rows at a time, and as many columns as a tile has.
fn boxes(module: &'static str, key: &Key, tile: Tile) -> Plan {
    let dims = [depth(key), key.samples * key.rows, 1, 1];
    let operand = TensorMap::new(Ptr::Arg(1), dims, [64, 128, 1, 1]);
    let lines = if key.backward { 64 } else { tile.cols() };
    let weights = TensorMap::new(Ptr::Arg(2), [key.k, key.m, 1], [64, lines, 1]);
    let pointers = match key.backward {
        true => [0, 3].map(Ptr::Arg).to_vec(),
        false => [0, 3, 4].map(Ptr::Arg).to_vec(),
    };
    product(module, key, tile)
        .staying()
        .pointers(pointers)
        .map(operand)
        .map(weights)
        .into()
}

/// What one output adds up.
fn depth(key: &Key) -> usize {
    if key.backward { key.m } else { key.k }
}

fn fits_split(key: &Key, tile: Tile) -> bool {
    fits_tiles(key) && tile.is_split(of_sample(key), depth(key))
}

fn is_worth_splitting(key: &Key, tile: Tile) -> bool {
    tile.is_worth_splitting(of_sample(key), depth(key))
}

/// Tiles of chunks of the depth, and their sum.
fn split(module: &'static str, key: &Key, tile: Tile) -> Plan {
    let [rows, width] = of_sample(key);
    let added = if key.backward {
        [Ptr::Null, Ptr::Null, Ptr::Arg(3)]
    } else {
        [Ptr::Arg(3), Ptr::Null, Ptr::Arg(4)]
    };
    tile.split([rows, width], depth(key)).product(
        product(module, key, tile),
        [key.samples * rows, width],
        rows,
        added,
    )
}

fn forward_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x, w) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (bias, residual) = (args.optional::<T>(3), args.optional::<T>(4));
    for (i, y) in y.iter_mut().enumerate() {
        let (row, j) = (i / key.m, i % key.m);
        let mut sum = T::ZERO;
        for l in 0..key.k {
            sum += x[row * key.k + l] * w[j * key.k + l];
        }
        *y = sum + bias.map_or(T::ZERO, |b| b[j]) + residual.map_or(T::ZERO, |r| r[i]);
    }
}

fn vjp_plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, w) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let residual = args.optional::<T>(3);
    for (i, dx) in dx.iter_mut().enumerate() {
        let (row, l) = (i / key.k, i % key.k);
        let mut sum = T::ZERO;
        for j in 0..key.m {
            sum += dy[row * key.m + j] * w[j * key.k + l];
        }
        *dx = sum + residual.map_or(T::ZERO, |r| r[i]);
    }
}

/// A tile for a few rows would wait for the weights to be packed.
fn fits_tiled(key: &Key) -> bool {
    key.dtype == DType::F32 && key.rows >= 16 && product::has_lanes()
}

/// Matrix units sum steps of 32 inputs in tiles of 16 x 16.
fn fits_amx(key: &Key) -> bool {
    key.dtype == DType::F32 && key.rows.min(key.k).min(key.m) >= 16 && product::has_amx()
}

fn forward_tiled(key: &Key, args: &mut NativeArgs<'_>) {
    let (product, y) = forward_product(key, args);
    product.by_lanes(y, args.products(), |row, _| Some(row));
}

fn forward_amx(key: &Key, args: &mut NativeArgs<'_>) {
    let (product, y) = forward_product(key, args);
    product.by_tiles(y, args.products(), |row, _| Some(row));
}

fn vjp_tiled(key: &Key, args: &mut NativeArgs<'_>) {
    let (product, dx) = vjp_product(key, args);
    product.by_lanes(dx, args.products(), |row, _| Some(row));
}

fn vjp_amx(key: &Key, args: &mut NativeArgs<'_>) {
    let (product, dx) = vjp_product(key, args);
    product.by_tiles(dx, args.products(), |row, _| Some(row));
}

fn forward_product<'a>(key: &Key, args: &mut NativeArgs<'a>) -> (Product<'a>, &'a mut [f32]) {
    let product = Product {
        a: args.input::<f32>(1),
        b: args.input::<f32>(2),
        taps: &[0],
        rows: None,
        depth: key.k,
        width: key.m,
        transposed: true,
        add: args.optional::<f32>(3),
        residual: args.optional::<f32>(4),
    };
    (product, args.output::<f32>(0))
}

fn vjp_product<'a>(key: &Key, args: &mut NativeArgs<'a>) -> (Product<'a>, &'a mut [f32]) {
    let product = Product {
        a: args.input::<f32>(1),
        b: args.input::<f32>(2),
        taps: &[0],
        rows: None,
        depth: key.m,
        width: key.k,
        transposed: false,
        add: None,
        residual: args.optional::<f32>(3),
    };
    (product, args.output::<f32>(0))
}

/// Rows of one block: enough to amortise packing `w`, few enough to give every core some.
fn block_rows(key: &Key) -> usize {
    key.rows.div_ceil(4).clamp(32, 256).min(key.rows)
}

fn forward_gemm<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x, w) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (bias, residual) = (args.optional::<T>(3), args.optional::<T>(4));
    let block = block_rows(key);
    let w = Mat::rows(w, key.m, key.k, key.k).t();
    let blocks = per_sample_blocks(y, key.rows * key.m, block * key.m);
    blocks.for_each(|(start, y)| {
        let rows = y.len() / key.m;
        match residual {
            Some(r) => y.copy_from_slice(&r[start..start + y.len()]),
            None => y.fill(T::ZERO),
        }
        if let Some(bias) = bias {
            y.chunks_exact_mut(key.m)
                .for_each(|y| y.iter_mut().zip(bias).for_each(|(y, &b)| *y += b));
        }
        let x = &x[start / key.m * key.k..][..rows * key.k];
        gemm(
            y,
            key.m,
            bias.is_some() || residual.is_some(),
            Mat::rows(x, rows, key.k, key.k),
            w,
        );
    });
}

fn vjp_gemm<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dx, dy, w) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let residual = args.optional::<T>(3);
    let block = block_rows(key);
    let w = Mat::rows(w, key.m, key.k, key.k);
    let blocks = per_sample_blocks(dx, key.rows * key.k, block * key.k);
    blocks.for_each(|(start, dx)| {
        let rows = dx.len() / key.k;
        let dy = &dy[start / key.k * key.m..][..rows * key.m];
        if let Some(residual) = residual {
            dx.copy_from_slice(&residual[start..start + dx.len()]);
        }
        let dy = Mat::rows(dy, rows, key.m, key.m);
        gemm(dx, key.k, residual.is_some(), dy, w);
    });
}

/// Splits every sample of `y` into blocks of at most `block` elements, so that no block holds parts of
/// two samples; yields each block with its start.
fn per_sample_blocks<T: Real>(
    y: &mut [T],
    sample: usize,
    block: usize,
) -> impl ParallelIterator<Item = (usize, &mut [T])> {
    y.par_chunks_mut(sample)
        .enumerate()
        .flat_map(move |(n, y)| {
            y.par_chunks_mut(block)
                .enumerate()
                .map(move |(b, y)| (n * sample + b * block, y))
        })
}
