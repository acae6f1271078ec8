//! Diffusion itself: the noise schedule, the coefficients of each sampling step, and the two traits
//! through which samplers see a model.

pub mod prior;
pub mod schedule;
pub mod tiled;
