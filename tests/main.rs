//! The integration tests, one module per theme.

mod gradients;
mod ops;
