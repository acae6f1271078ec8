#![doc = include_str!("../README.md")]
//!
//! # The map
//!
//! A [`Tensor`] lives on a [`runtime`]; [`ops`] run on tensors, each forward and backward; [`nn`] layers are
//! made of ops, [`models`] of layers. A model is seen by [`samplers`] as a
//! [`Denoiser`](diffusion::prior::Denoiser) and a [`Codec`](diffusion::prior::Codec); what is undone is an
//! [`Operator`](operators::Operator). [`pipeline`] puts them together, [`mod@verify`] compares them with
//! PyTorch.

pub mod batch;
pub mod cx;
pub mod diagnose;
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
pub mod reading;
pub mod report;
pub mod rng;
pub mod runtime;
pub mod samplers;
pub mod scenes;
pub mod shape;
pub mod sheet;
pub mod study;
pub mod tensor;
pub mod train;
pub mod verify;

pub use cx::Cx;
pub use dtype::DType;
pub use error::{Error, Result};
pub use operators::Task;
pub use pipeline::Pipeline;
pub use pipeline::device::Device;
pub use pipeline::job::{Method, Restore};
pub use shape::Shape;
pub use tensor::Tensor;
