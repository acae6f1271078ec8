//! The cotangent of the weights.

use super::{Direction, Geometry, Key, cases, gathered, kernels, plain, tiled};
use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::ops::tensor_cores::Tile;
use crate::ops::variant::{Op, Variant};
use crate::runtime::Arg;
use crate::tensor::Tensor;

/// `dw` from `x` and `dy`.
pub static WGRAD: Op<Key> = Op {
    name: "conv2d.wgrad",
    variants: &[
        Variant::kernels("tensor_cores_128", |key| {
            kernels::wgrad_tiles(key, Tile::Large)
        })
        .when(kernels::fits_tiles)
        .where_it_pays(kernels::is_large),
        Variant::kernels("tensor_cores_64", |key| {
            kernels::wgrad_tiles(key, Tile::Small)
        })
        .when(kernels::fits_tiles),
        Variant::kernels("chunks", kernels::wgrad_chunks),
        Variant::kernels("plain", kernels::wgrad_plain),
        Variant::native("tiled", tiled::wgrad, gathered::wgrad::<f64>).when(tiled::fits_wgrad),
        Variant::native(
            "gathered_gemm",
            gathered::wgrad::<f32>,
            gathered::wgrad::<f64>,
        ),
        Variant::native("plain", plain::wgrad::<f32>, plain::wgrad::<f64>),
    ],
    cases: || cases::of(Direction::Wgrad),
};

/// `dw: [k, k, i, o]` from `x: [n, h, w, i]` and `dy: [n, ho, wo, o]`, summed over the samples and their pixels:
/// in f32 beside 16-bit activations.
///
/// # Errors
/// [`Error::Shape`] when `dy` is not what a forward pass over `x` returns.
pub fn wgrad(cx: &Cx, x: &Tensor, geometry: Geometry, k: usize, dy: &Tensor) -> Result<Tensor> {
    let [samples, height, width, inputs] = x.nhwc("conv2d.wgrad")?;
    let [of_dy, ho, wo, outputs] = dy.nhwc("conv2d.wgrad, dy")?;
    let sizes = [height, width].map(|size| geometry.out(size, k));
    if k == 0 || of_dy != samples || sizes != [Some(ho), Some(wo)] {
        let want = match sizes {
            [Some(ho), Some(wo)] if k > 0 => {
                format!("[{samples}, {ho}, {wo}, o] for an input of {:?}", x.dims())
            }
            _ => format!("an image that holds a kernel of {k} x {k} with {geometry:?}"),
        };
        return Err(Error::shape("conv2d.wgrad, dy", want, dy.shape()));
    }
    let key = Key {
        dtype: x.dtype(),
        samples,
        x: [height, width],
        y: [ho, wo],
        inputs,
        outputs,
        k,
        geometry,
        bias: false,
        shift: false,
        residual: false,
        wide: false,
        groups: 0,
        normed: None,
        narrow: None,
        direction: Direction::Wgrad,
    };
    let dw = cx.empty_wide([k, k, inputs, outputs])?;
    WGRAD.launch(cx, &key, &[Arg::Out(&dw), Arg::In(x), Arg::In(dy)])?;
    Ok(dw)
}
