//! Layers: each has its parameters, `forward`, and right under it `vjp`, which mirrors it line by line.
//!
//! `forward` returns what `vjp` needs as a `Saved` value; `vjp` consumes it, so that memory is given back
//! as the backward pass goes. In a forward-only run `Saved` holds no tensor. While its parameters are frozen, a
//! layer whose input cotangent does not depend on its input (a convolution, a linear map) saves nothing; while they are
//! trained, [`Cx::keep_input`](crate::cx::Cx::keep_input) holds its input.
//!
//! To add one: one file here with `new`, `forward` and `vjp`, and a finite-difference test in `tests/layers.rs`.

pub mod attention;
pub mod conv;
pub mod linear;
pub mod norm;
pub mod param;
pub mod resample;
pub mod resnet;
pub mod time;
pub mod transformer;
