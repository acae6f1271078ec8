//! Ops: one room per op, holding its documentation, its variants forward and backward, its textbook
//! oracle and its checks. Ops do not call ops.
//!
//! To add one: `src/ops/<op>.rs`, and its line in [`ALL`].

pub mod check;
pub mod variant;

pub mod banded;
pub mod conv2d;
pub mod filter2d;
pub mod group_norm;
pub mod linear;
pub mod mask;
pub mod noise;

use check::AnyOp;

/// Every op in every direction; `check`, the tests and the benches walk this list.
pub static ALL: &[&dyn AnyOp] = &[
    &banded::FORWARD,
    &conv2d::FORWARD,
    &conv2d::VJP,
    &filter2d::FORWARD,
    &filter2d::VJP,
    &group_norm::FORWARD,
    &group_norm::VJP,
    &linear::FORWARD,
    &linear::VJP,
    &mask::FORWARD,
    &noise::FORWARD,
];
