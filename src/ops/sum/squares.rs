//! The sum of the squares of all elements, onto that of others: chained over all gradients, their norm.

use rayon::prelude::*;

use crate::cx::Cx;
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::ops::variant::{Fill, Key as KeyTrait, Op, Spec, Variant};
use crate::runtime::Arg;
use crate::runtime::kernel::{Launch, Plan, Ptr};
use crate::runtime::native::NativeArgs;
use crate::runtime::simd::{sum_pairs, wide};
use crate::tensor::Tensor;

/// One launch over `len` elements of type `dtype`.
#[derive(Clone, Debug)]
pub struct Key {
    dtype: DType,
    len: usize,
    /// Whether there is a sum to begin with.
    onto: bool,
}

impl KeyTrait for Key {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn set_dtype(&mut self, dtype: DType) {
        self.dtype = dtype;
    }

    fn args(&self) -> Vec<Spec> {
        let onto = Spec::input("onto", 1).fill(Fill::Positive).wide();
        vec![
            Spec::out("sum", 1).wide(),
            Spec::input("x", self.len),
            onto.present(self.onto),
        ]
    }

    fn flops(&self) -> u64 {
        2 * self.len as u64
    }
}

/// `sum` from `x` and `onto`.
pub static SQUARES: Op<Key> = Op {
    name: "sum.squares",
    variants: &[
        Variant::kernels("chunks", chunks).when(|key| key.len.is_multiple_of(key.dtype.pack())),
        Variant::kernels("plain", |key| {
            Launch::new("sum/squares_1_plain", key.dtype, [1, 1, 1], 256)
                .ints([key.len])
                .into()
        }),
        Variant::native("chunks", squares_chunks::<f32>, squares_chunks::<f64>),
        Variant::native("plain", squares_plain::<f32>, squares_plain::<f64>),
    ],
    cases: || {
        let sizes = [
            (1, false),
            (33, true),
            (4_097, false),
            (16_384, true),
            (70_008, false),
        ];
        let key = |(len, onto)| Key {
            dtype: DType::F32,
            len,
            onto,
        };
        sizes.map(key).to_vec()
    },
};

/// Four packs for every thread, or as many fours as keep them within 1024 chunks; then their sums.
fn chunks(key: &Key) -> Plan {
    const STEP: usize = 4 * 256;
    let packs = key.len / key.dtype.pack();
    let chunk = STEP * packs.div_ceil(1024 * STEP);
    let chunks = packs.div_ceil(chunk);
    let [sum, x, onto] = [0, 1, 2].map(Ptr::Arg);
    let sums = Ptr::Scratch(0);
    let launch = |part, dtype, blocks| {
        Launch::new("sum/squares_2_chunks", dtype, [blocks, 1, 1], 256).part(part)
    };
    let part = launch("part", key.dtype, chunks).pointers([sums, x]);
    let fold = launch("fold", DType::F32, 1).pointers([sum, sums, onto]);
    Plan {
        launches: vec![part.ints([packs, chunk]), fold.ints([chunks])],
        scratch: chunks * size_of::<f64>(),
    }
}

/// The sum of the squares of `x`, plus `onto: [1]`: `[1]`, in f32 whatever `x` is (f64 when that is).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `x` is empty or `onto` is not one element,
/// [`Error::Plan`](crate::Error::Plan) when there is no room.
pub fn squares(cx: &Cx, x: &Tensor, onto: Option<&Tensor>) -> Result<Tensor> {
    let key = Key {
        dtype: x.dtype(),
        len: x.shape().elements(),
        onto: onto.is_some(),
    };
    let sum = cx.empty_in(key.dtype.wide(), [1])?;
    let onto = onto.map_or(Arg::Absent, Arg::In);
    SQUARES.launch(cx, &key, &[Arg::Out(&sum), Arg::In(x), onto])?;
    Ok(sum)
}

fn squares_plain<T: Real>(_: &Key, args: &mut NativeArgs<'_>) {
    let (sum, x) = (args.output::<T>(0), args.input::<T>(1));
    let onto = args.optional::<T>(2).map_or(T::ZERO, |onto| onto[0]);
    sum[0] = onto + x.iter().map(|&x| x * x).sum::<T>();
}

/// Elements of one task.
const CHUNK: usize = 1 << 15;
/// Elements that are added up in `T`; their sums are in f64.
const BLOCK: usize = 1 << 10;

fn squares_chunks<T: Real>(_: &Key, args: &mut NativeArgs<'_>) {
    let (sum, x) = (args.output::<T>(0), args.input::<T>(1));
    let onto = args.optional::<T>(2).map_or(0.0, |onto| onto[0].f64());
    let chunk = |x: &[T]| {
        wide(
            #[inline(always)]
            || {
                let mut sum = 0.0;
                for x in x.chunks(BLOCK) {
                    sum += sum_pairs(x, x, |a, b| a * b).f64();
                }
                sum
            },
        )
    };
    let sums: Vec<f64> = x.par_chunks(CHUNK).map(chunk).collect();
    sum[0] = T::of(onto + sums.iter().sum::<f64>());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 + 4 + .. + n^2 = n (n + 1) (2n + 1) / 6, on top of what was there; f64 holds it exactly.
    #[test]
    fn of_the_first_numbers() -> Result<()> {
        let cx = Cx::new(Cx::native().rt().clone(), DType::F64)?;
        let n = 70_001;
        let x: Vec<f64> = (1..=n).map(f64::from).collect();
        let x = cx.upload(&x, [x.len()])?;
        let n = f64::from(n);
        let want = n * (n + 1.0) * (2.0 * n + 1.0) / 6.0;
        let alone = squares(&cx, &x, None)?;
        assert_eq!(alone.to_vec::<f64>()?, [want]);
        let twice = squares(&cx, &x, Some(&alone))?;
        assert_eq!(twice.to_vec::<f64>()?, [2.0 * want]);
        Ok(())
    }
}
