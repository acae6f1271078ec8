//! Image restoration by diffusion posterior sampling.

pub mod dtype;
pub mod error;
pub mod io;
pub mod metrics;
pub mod models;
pub mod runtime;

pub use dtype::DType;
pub use error::{Error, Result};
