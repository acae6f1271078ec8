//! Measurement operators: what turned the clean image into the one that was measured.

pub mod matrix;
pub mod motion;
