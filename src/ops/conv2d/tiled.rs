//! Products that read the image where it is: see [`crate::runtime::product`] and [`crate::runtime::outer`].

use rayon::prelude::*;

use super::{Key, Phase};
use crate::dtype::DType;
use crate::runtime::native::{NativeArgs, Products};
use crate::runtime::outer::{self, Outer};
use crate::runtime::product::{self, Product};

pub(super) fn fits(key: &Key) -> bool {
    key.dtype == DType::F32 && product::has_lanes()
}

/// Whether matrix units have enough to do: steps of 32 channels, tiles of 16 columns.
pub(super) fn fits_amx(key: &Key) -> bool {
    key.dtype == DType::F32 && key.inputs.min(key.outputs) >= 16 && product::has_amx()
}

pub(super) fn forward(key: &Key, args: &mut NativeArgs<'_>) {
    forward_by(key, args, |product, y, products| {
        product.by_lanes(y, products, |p, tap| key.source(p, tap));
    });
}

pub(super) fn forward_amx(key: &Key, args: &mut NativeArgs<'_>) {
    forward_by(key, args, |product, y, products| {
        product.by_tiles(y, products, |p, tap| key.source(p, tap));
    });
}

fn forward_by(
    key: &Key,
    args: &mut NativeArgs<'_>,
    run: impl Fn(&Product<'_>, &mut [f32], Products) + Sync,
) {
    let products = args.products();
    let (y, x, w) = (
        args.output::<f32>(0),
        args.input::<f32>(1),
        args.operand::<f32>(2),
    );
    let (bias, shift, residual) = (
        args.optional::<f32>(3),
        args.optional::<f32>(4),
        args.optional::<f32>(5),
    );
    let (from, to) = (
        key.x[0] * key.x[1] * key.inputs,
        key.y[0] * key.y[1] * key.outputs,
    );
    let taps: Vec<usize> = (0..key.taps()).collect();
    y.par_chunks_mut(to).enumerate().for_each(|(n, y)| {
        let shift = shift.map(|s| &s[n * key.outputs..][..key.outputs]);
        let both = bias
            .zip(shift)
            .map(|(b, s)| b.iter().zip(s).map(|(b, s)| b + s).collect::<Vec<_>>());
        let product = Product {
            a: &x[n * from..][..from],
            b: w,
            taps: &taps,
            rows: None,
            depth: key.inputs,
            width: key.outputs,
            transposed: false,
            add: both.as_deref().or(bias).or(shift),
            residual: residual.map(|r| &r[n * to..][..to]),
        };
        run(&product, y, products);
    });
}

/// A phase without taps would have no product.
pub(super) fn fits_vjp(key: &Key) -> bool {
    fits(key) && key.k >= key.geometry.stride
}

pub(super) fn fits_vjp_amx(key: &Key) -> bool {
    fits_amx(key) && key.k >= key.geometry.stride
}

pub(super) fn vjp(key: &Key, args: &mut NativeArgs<'_>) {
    vjp_by(key, args, |product, dx, products| {
        product.by_lanes(dx, products, |q, tap| key.target(q, tap));
    });
}

pub(super) fn vjp_amx(key: &Key, args: &mut NativeArgs<'_>) {
    vjp_by(key, args, |product, dx, products| {
        product.by_tiles(dx, products, |q, tap| key.target(q, tap));
    });
}

/// Phase by phase: no zeros are multiplied.
fn vjp_by(
    key: &Key,
    args: &mut NativeArgs<'_>,
    run: impl Fn(&Product<'_>, &mut [f32], Products) + Sync,
) {
    let products = args.products();
    let (dx, dy, w, bias) = (
        args.output::<f32>(0),
        args.input::<f32>(1),
        args.operand::<f32>(2),
        args.optional::<f32>(3),
    );
    let phases = key.phases();
    let (from, to) = (
        key.y[0] * key.y[1] * key.outputs,
        key.x[0] * key.x[1] * key.inputs,
    );
    dx.par_chunks_mut(to).enumerate().for_each(|(n, dx)| {
        for Phase { pixels, taps } in &phases {
            let product = Product {
                a: &dy[n * from..][..from],
                b: w,
                taps,
                rows: Some(pixels),
                depth: key.outputs,
                width: key.inputs,
                transposed: true,
                add: bias,
                residual: None,
            };
            run(&product, dx, products);
        }
    });
}

pub(super) fn fits_wgrad(key: &Key) -> bool {
    key.dtype == DType::F32 && outer::is_worth(key.outputs)
}

pub(super) fn wgrad(key: &Key, args: &mut NativeArgs<'_>) {
    let dw = args.output::<f32>(0);
    let outer = Outer {
        a: args.input::<f32>(1),
        b: args.input::<f32>(2),
        samples: key.samples,
        a_size: key.x,
        b_size: key.y,
        rows: key.inputs,
        columns: key.outputs,
        k: key.k,
        stride: key.geometry.stride,
        before: key.geometry.before,
    };
    outer.run(dw);
}
