//! The textbook loops.

use super::Key;
use crate::dtype::Real;
use crate::runtime::native::NativeArgs;

pub(super) fn forward<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (y, x, w) = (
        args.output::<T>(0),
        args.input::<T>(1),
        args.operand::<T>(2).widened(),
    );
    let added = [3, 4, 5].map(|i| args.optional::<T>(i));
    products(key, y, [x, &w], added);
}

/// `added`: bias, shift and residual.
pub(super) fn products<T: Real>(
    key: &Key,
    y: &mut [T],
    [x, w]: [&[T]; 2],
    [bias, shift, residual]: [Option<&[T]>; 3],
) {
    let (px, py) = (key.x[0] * key.x[1], key.y[0] * key.y[1]);
    for (i, y) in y.iter_mut().enumerate() {
        let (n, p, o) = (i / key.outputs / py, i / key.outputs % py, i % key.outputs);
        let mut sum = T::ZERO;
        for tap in 0..key.taps() {
            if let Some(q) = key.source(p, tap) {
                for c in 0..key.inputs {
                    sum += x[(n * px + q) * key.inputs + c]
                        * w[(tap * key.inputs + c) * key.outputs + o];
                }
            }
        }
        *y = sum
            + bias.map_or(T::ZERO, |b| b[o])
            + shift.map_or(T::ZERO, |s| s[n * key.outputs + o])
            + residual.map_or(T::ZERO, |r| r[i]);
    }
}

pub(super) fn vjp<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    vjp_by::<T>(key, args, vjp_products);
}

/// Products of a cotangent and `w`, and a bias, to `dx`.
pub(super) type VjpProducts<T> = fn(&Key, &mut [T], [&[T]; 2], Option<&[T]>);

/// `dx` by `products`, from `dx, dy, w, bias`.
pub(super) fn vjp_by<T: Real>(key: &Key, args: &mut NativeArgs<'_>, products: VjpProducts<T>) {
    let (dx, dy) = (args.output::<T>(0), args.input::<T>(1));
    let w = args.operand::<T>(2).widened();
    products(key, dx, [dy, &w], args.optional::<T>(3));
}

pub(super) fn vjp_products<T: Real>(
    key: &Key,
    dx: &mut [T],
    [dy, w]: [&[T]; 2],
    bias: Option<&[T]>,
) {
    let (px, py) = (key.x[0] * key.x[1], key.y[0] * key.y[1]);
    for (i, dx) in dx.iter_mut().enumerate() {
        let (n, q, c) = (i / key.inputs / px, i / key.inputs % px, i % key.inputs);
        let mut sum = T::ZERO;
        for tap in 0..key.taps() {
            if let Some(p) = key.target(q, tap) {
                for o in 0..key.outputs {
                    sum += dy[(n * py + p) * key.outputs + o]
                        * w[(tap * key.inputs + c) * key.outputs + o];
                }
            }
        }
        *dx = sum + bias.map_or(T::ZERO, |b| b[c]);
    }
}

pub(super) fn wgrad<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dw, x, dy) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (px, py) = (key.x[0] * key.x[1], key.y[0] * key.y[1]);
    for (j, dw) in dw.iter_mut().enumerate() {
        let (row, o) = (j / key.outputs, j % key.outputs);
        let (tap, i) = (row / key.inputs, row % key.inputs);
        let mut sum = T::ZERO;
        for n in 0..key.samples {
            for p in 0..py {
                if let Some(q) = key.source(p, tap) {
                    sum += x[(n * px + q) * key.inputs + i] * dy[(n * py + p) * key.outputs + o];
                }
            }
        }
        *dw = sum;
    }
}
