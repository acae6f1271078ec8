//! The cotangent of the weights.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::ops::tensor_cores::Tile;
use crate::ops::variant::{Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::gemm::{Mat, gemm};
use crate::runtime::kernel::{Launch, Plan};
use crate::runtime::native::NativeArgs;
use crate::runtime::outer::{self, Outer};
use crate::tensor::Tensor;

/// One launch: a sum over `samples` times `rows` rows.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    samples: usize,
    rows: usize,
    k: usize,
    m: usize,
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
        vec![
            Spec::out("dw", self.m * self.k).wide(),
            Spec::input("x", rows * self.k),
            Spec::input("dy", rows * self.m),
        ]
    }

    fn flops(&self) -> u64 {
        2 * (self.samples * self.rows * self.k * self.m) as u64
    }
}

/// `dw = dy^T x`.
pub static WGRAD: Op<Key> = Op {
    name: "linear.wgrad",
    variants: &[
        Variant::kernels("tensor_cores_128", |key| tiles(key, Tile::Large))
            .when(fits_tiles)
            .where_it_pays(|key| Tile::is_large_enough([key.m, key.k])),
        Variant::kernels("tensor_cores_64", |key| tiles(key, Tile::Small)).when(fits_tiles),
        Variant::kernels("plain", |key| {
            let rows = key.samples * key.rows;
            Launch::each("linear/wgrad_1_plain", key.dtype, key.m * key.k)
                .ints([rows, key.k, key.m])
                .into()
        }),
        Variant::native("tiled", tiled, by_gemm::<f64>)
            .when(|key| key.dtype == DType::F32 && outer::is_worth(key.k)),
        Variant::native("gemm", by_gemm::<f32>, by_gemm::<f64>),
        Variant::native("plain", plain::<f32>, plain::<f64>),
    ],
    cases: || {
        let sizes = [
            (1, 1, 1, 1),
            (2, 1, 33, 31),
            (3, 77, 32, 40),
            (1, 113, 203, 65),
            (2, 300, 64, 64),
            (2, 70, 136, 88),
            (1, 130, 24, 200),
            (4, 1, 8, 16),
            (3, 111, 120, 240),
            (2, 300, 264, 16),
        ];
        let key = |(samples, rows, k, m)| Key {
            dtype: DType::F32,
            samples,
            rows,
            k,
            m,
        };
        sizes.map(key).to_vec()
    },
};

/// `dw: [m, k]` from `x: [n, .., k]` and `dy: [n, .., m]`, summed over the samples and their rows: in f32 beside
/// 16-bit activations.
///
/// # Errors
/// [`Error::Shape`] when `dy` has not as many rows as `x`.
pub fn wgrad(cx: &Cx, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let rank = x.dims().len();
    if rank < 2 || dy.dims().len() != rank || x.dims()[..rank - 1] != dy.dims()[..rank - 1] {
        let rows = &x.dims()[..rank.saturating_sub(1)];
        let rows: Vec<String> = rows.iter().map(usize::to_string).collect();
        let want = format!("[{}, m], the rows of x", rows.join(", "));
        return Err(Error::shape("linear.wgrad, dy", want, dy.shape()));
    }
    let (k, m) = (x.shape().channels(), dy.shape().channels());
    let key = Key {
        dtype: x.dtype(),
        samples: x.shape().samples(),
        rows: x.shape().per_sample() / k.max(1),
        k,
        m,
    };
    let dw = cx.empty_wide([m, k])?;
    WGRAD.launch(cx, &key, &[Arg::Out(&dw), Arg::In(x), Arg::In(dy)])?;
    Ok(dw)
}

/// 16-byte pieces of the rows on either side.
fn fits_tiles(key: &Key) -> bool {
    key.dtype.is_half() && key.k.is_multiple_of(8) && key.m.is_multiple_of(8)
}

fn tiles(key: &Key, tile: Tile) -> Plan {
    let (rows, outputs) = (key.samples * key.rows, [key.m, key.k]);
    let launch = tile
        .launch("linear/wgrad_2_tensor_cores", key.dtype, outputs)
        .ints([rows, key.k, key.m]);
    let chunks = tile.chunks(outputs, rows);
    chunks.plan(launch, key.m * key.k)
}

fn plain<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dw, x, dy) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    for (i, dw) in dw.iter_mut().enumerate() {
        let (j, l) = (i / key.k, i % key.k);
        let mut sum = T::ZERO;
        for row in 0..key.samples * key.rows {
            sum += dy[row * key.m + j] * x[row * key.k + l];
        }
        *dw = sum;
    }
}

/// Rows of `dw` of one task.
const BLOCK: usize = 32;

fn by_gemm<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dw, x, dy) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let rows = key.samples * key.rows;
    let x = Mat::rows(x, rows, key.k, key.k);
    let blocks = dw.par_chunks_mut(BLOCK * key.k).enumerate();
    blocks.for_each(|(block, dw)| {
        let dy = Mat::rows(&dy[block * BLOCK..], rows, dw.len() / key.k, key.m);
        gemm(dw, key.k, false, dy.t(), x);
    });
}

fn tiled(key: &Key, args: &mut NativeArgs<'_>) {
    let dw = args.output::<f32>(0);
    let outer = Outer {
        a: args.input::<f32>(2),
        b: args.input::<f32>(1),
        samples: key.samples,
        a_size: [key.rows, 1],
        b_size: [key.rows, 1],
        rows: key.m,
        columns: key.k,
        k: 1,
        stride: 1,
        before: 0,
    };
    outer.run(dw);
}
