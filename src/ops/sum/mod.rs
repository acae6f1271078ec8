//! Sums over what a parameter or a shift was broadcast to, and of squares: gradients of biases, and their norm.

mod rows;
mod squares;

pub use rows::{ROWS, over_rows, per_sample};
pub use squares::{SQUARES, squares};
