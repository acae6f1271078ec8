//! Element-wise loops at the width of the processor they run on.

use crate::dtype::Real;

/// Runs `f` compiled for the widest vector unit of this processor. Loops in `f` over slices, with
/// everything they call inlined, become vector loops. Write `#[inline(always)]` before the closure:
/// one that stays a function of its own is compiled for the oldest processor.
#[inline]
pub fn wide<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Partial results of a reduction: more than one vector, so that additions overlap.
const LANES: usize = 16;

/// The sum of `x` in a fixed order, for use inside [`wide`].
#[inline(always)]
pub fn sum<T: Real>(x: &[T]) -> T {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [T::ZERO; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += chunk[i];
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += x;
    }
    fold(lanes, |a, b| a + b)
}

/// The sum of `f(x, y)` over pairs in a fixed order, for use inside [`wide`].
#[inline(always)]
pub fn sum_pairs<T: Real>(x: &[T], y: &[T], f: impl Fn(T, T) -> T) -> T {
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (ys, y_rest) = y.as_chunks::<LANES>();
    let mut lanes = [T::ZERO; LANES];
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            lanes[i] += f(x[i], y[i]);
        }
    }
    for ((lane, &x), &y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane += f(x, y);
    }
    fold(lanes, |a, b| a + b)
}

/// The largest of `x` and `least`, for use inside [`wide`]. NaNs are passed over.
#[inline(always)]
pub fn largest<T: Real>(x: &[T], least: T) -> T {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let larger = |a: T, b: T| if b > a { b } else { a };
    let mut lanes = [least; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], chunk[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, x);
    }
    fold(lanes, larger)
}

#[inline(always)]
fn fold<T: Real>(mut lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
    }
    lanes[0]
}
