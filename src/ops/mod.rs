//! Ops: one room per op, holding its documentation, its variants forward and backward, its textbook
//! oracle and its checks. Ops do not call ops.
//!
//! To add one: `src/ops/<op>.rs`, and its line in [`ALL`].

pub mod check;
pub mod variant;

pub mod activation;
pub mod add;
pub mod attention;
pub mod banded;
pub mod cast;
pub mod combine;
pub mod concat;
pub mod conv2d;
pub mod embed;
pub mod filter2d;
pub mod geglu;
pub mod group_norm;
pub mod layer_norm;
pub mod linear;
pub mod lookup;
pub mod mask;
pub mod noise;
pub mod repack;
pub mod residual;
pub mod softmax;
pub mod sphere;
mod tensor_cores;
pub mod upsample;

use check::AnyOp;

/// Every op in every direction; `check`, the tests and the benches walk this list.
pub static ALL: &[&dyn AnyOp] = &[
    &activation::FORWARD,
    &activation::VJP,
    &add::FORWARD,
    &attention::FORWARD,
    &attention::VJP,
    &attention::VJP_KV,
    &banded::FORWARD,
    &cast::FORWARD,
    &combine::FORWARD,
    &concat::FORWARD,
    &concat::VJP,
    &conv2d::FORWARD,
    &conv2d::VJP,
    &embed::TOKENS,
    &embed::TIMESTEP,
    &filter2d::FORWARD,
    &filter2d::VJP,
    &geglu::FORWARD,
    &geglu::VJP,
    &group_norm::FORWARD,
    &group_norm::VJP,
    &layer_norm::FORWARD,
    &layer_norm::VJP,
    &linear::FORWARD,
    &linear::VJP,
    &lookup::FORWARD,
    &mask::FORWARD,
    &noise::FORWARD,
    &repack::FORWARD,
    &residual::FORWARD,
    &softmax::FORWARD,
    &softmax::VJP,
    &sphere::FORWARD,
    &upsample::FORWARD,
    &upsample::VJP,
];
