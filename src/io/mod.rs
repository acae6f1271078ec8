//! Files: the only place that knows the safetensors, image, png, tiff and moxcms crates.
//!
//! To add an image format: one row in `image/read.rs` (reading) and one variant of `image::Format` (writing).
//! To add a stored number type: one variant of [`weights::Kind`] and the arms the compiler asks for.

pub mod atomic;
pub mod cache;
pub mod csv;
pub mod image;
pub mod weights;
