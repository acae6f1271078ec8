//! Image restoration by diffusion posterior sampling.

pub mod cx;
pub mod diffusion;
pub mod dtype;
pub mod error;
pub mod io;
pub mod metrics;
pub mod models;
pub mod nn;
pub mod operators;
pub mod ops;
pub mod pipeline;
pub mod rng;
pub mod runtime;
pub mod samplers;
pub mod shape;
pub mod tensor;
pub mod verify;

pub use cx::Cx;
pub use dtype::DType;
pub use error::{Error, Result};
pub use shape::Shape;
pub use tensor::Tensor;
