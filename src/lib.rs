//! Image restoration by diffusion posterior sampling.

pub mod diffusion;
pub mod dtype;
pub mod error;
pub mod io;
pub mod operators;
pub mod rng;

pub use dtype::DType;
pub use error::{Error, Result};
