//! Ops: one room per op, holding its documentation, its variants forward and backward, its textbook
//! oracle and its checks. Ops do not call ops.
//!
//! To add one: `src/ops/<op>.rs`, `kernels/<op>/`, and its line in [`ALL`].

pub mod bench;
pub mod case;
pub mod check;
pub mod predict;
pub mod variant;

pub mod activation;
pub mod adamw;
pub mod add;
pub mod attention;
pub mod banded;
pub mod cast;
mod chunks;
pub mod clip;
mod columns;
pub mod combine;
pub mod concat;
pub mod conv2d;
pub mod conv_norm;
pub mod ema;
pub mod embed;
pub mod filter2d;
pub mod gaussian;
pub mod geglu;
pub mod group_norm;
pub mod layer_norm;
pub mod linear;
pub mod lookup;
pub mod mask;
pub mod modulus;
pub mod noise;
mod norm_fold;
pub mod quantise;
pub mod repack;
pub mod residual;
pub mod softmax;
pub mod sphere;
pub mod sum;
mod tensor_cores;
pub mod upsample;
pub mod upsample_conv;

use crate::error::{Error, Result};
use case::AnyOp;

/// Every op in every direction; `check`, the tests and the benches walk this list.
pub static ALL: &[&dyn AnyOp] = &[
    &activation::FORWARD,
    &activation::VJP,
    &adamw::STEP,
    &add::FORWARD,
    &attention::FORWARD,
    &attention::VJP,
    &attention::VJP_KV,
    &banded::FORWARD,
    &cast::FORWARD,
    &clip::FORWARD,
    &clip::VJP,
    &combine::FORWARD,
    &concat::FORWARD,
    &concat::VJP,
    &conv2d::FORWARD,
    &conv2d::FORWARD_MOMENTS,
    &conv2d::FORWARD_NORMED,
    &conv2d::FORWARD_NORMED_MOMENTS,
    &conv2d::VJP,
    &conv2d::VJP_MOMENTS,
    &conv2d::VJP_NORMED,
    &conv2d::VJP_SUMMED,
    &conv2d::VJP_THROUGH,
    &conv2d::VJP_THROUGH_SUMMED,
    &conv2d::WGRAD,
    &ema::UPDATE,
    &embed::TOKENS,
    &embed::WGRAD,
    &embed::TIMESTEP,
    &filter2d::FORWARD,
    &filter2d::VJP,
    &gaussian::FORWARD,
    &gaussian::VJP,
    &geglu::FORWARD,
    &geglu::VJP,
    &group_norm::FORWARD,
    &group_norm::FROM_MOMENTS,
    &group_norm::STATISTICS,
    &group_norm::VJP,
    &group_norm::VJP_COEFFICIENTS,
    &group_norm::VJP_FROM_SUMS,
    &group_norm::WGRAD,
    &layer_norm::FORWARD,
    &layer_norm::VJP,
    &layer_norm::WGRAD,
    &linear::FORWARD,
    &linear::VJP,
    &linear::VJP_GEGLU,
    &linear::WGRAD,
    &lookup::FORWARD,
    &mask::FORWARD,
    &modulus::FORWARD,
    &modulus::VJP,
    &noise::FORWARD,
    &quantise::FORWARD,
    &repack::FORWARD,
    &residual::FORWARD,
    &softmax::FORWARD,
    &softmax::VJP,
    &sphere::FORWARD,
    &sum::ROWS,
    &sum::SQUARES,
    &upsample::FORWARD,
    &upsample::VJP,
    &upsample_conv::FOLD,
];

/// Whether `op` has a variant of this name, on whatever runtime.
///
/// # Errors
/// [`Error::Argument`] listing the names that there are.
pub fn expect_variant(op: &str, variant: &str) -> Result<()> {
    let refuse = |thing: &str, name: &str, names: Vec<&str>| {
        let why = format!("no {thing} `{name}`; there are {}", names.join(", "));
        Err(Error::argument("--variant", why))
    };
    match ALL.iter().find(|o| o.name() == op) {
        None => refuse("op", op, ALL.iter().map(|o| o.name()).collect()),
        Some(o) if o.variants().contains(&variant) => Ok(()),
        Some(o) => refuse(&format!("variant of {op}"), variant, o.variants()),
    }
}
