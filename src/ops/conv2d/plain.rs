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
    for (row, y) in y.chunks_exact_mut(key.outputs).enumerate() {
        let (n, p) = (row / py, row % py);
        y.fill(T::ZERO);
        for tap in 0..key.taps() {
            if let Some(q) = key.source(p, tap) {
                let x = &x[(n * px + q) * key.inputs..][..key.inputs];
                add_products(y, x, &w[tap * key.inputs * key.outputs..]);
            }
        }
        for (o, y) in y.iter_mut().enumerate() {
            *y = *y
                + bias.map_or(T::ZERO, |b| b[o])
                + shift.map_or(T::ZERO, |s| s[n * key.outputs + o])
                + residual.map_or(T::ZERO, |r| r[row * key.outputs + o]);
        }
    }
}

/// Adds a row times a matrix, whose rows are as long as `y`, to `y`.
fn add_products<T: Real>(y: &mut [T], x: &[T], w: &[T]) {
    for (&x, w) in x.iter().zip(w.chunks_exact(y.len())) {
        for (y, &w) in y.iter_mut().zip(w) {
            *y += x * w;
        }
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
    let w = swapped(w, key);
    for (row, dx) in dx.chunks_exact_mut(key.inputs).enumerate() {
        let (n, q) = (row / px, row % px);
        dx.fill(T::ZERO);
        for tap in 0..key.taps() {
            if let Some(p) = key.target(q, tap) {
                let dy = &dy[(n * py + p) * key.outputs..][..key.outputs];
                add_products(dx, dy, &w[tap * key.inputs * key.outputs..]);
            }
        }
        for (c, dx) in dx.iter_mut().enumerate() {
            *dx += bias.map_or(T::ZERO, |b| b[c]);
        }
    }
}

/// `[taps, inputs, outputs]` to `[taps, outputs, inputs]`.
fn swapped<T: Real>(w: &[T], key: &Key) -> Vec<T> {
    let mut all = Vec::with_capacity(w.len());
    for w in w.chunks_exact(key.inputs * key.outputs) {
        for o in 0..key.outputs {
            all.extend(w[o..].iter().step_by(key.outputs));
        }
    }
    all
}

pub(super) fn wgrad<T: Real>(key: &Key, args: &mut NativeArgs<'_>) {
    let (dw, x, dy) = (args.output::<T>(0), args.input::<T>(1), args.input::<T>(2));
    let (px, py) = (key.x[0] * key.x[1], key.y[0] * key.y[1]);
    for (row, dw) in dw.chunks_exact_mut(key.outputs).enumerate() {
        let (tap, i) = (row / key.inputs, row % key.inputs);
        dw.fill(T::ZERO);
        for n in 0..key.samples {
            for p in 0..py {
                if let Some(q) = key.source(p, tap) {
                    let x = &x[(n * px + q) * key.inputs + i..][..1];
                    add_products(dw, x, &dy[(n * py + p) * key.outputs..]);
                }
            }
        }
    }
}
