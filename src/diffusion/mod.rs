//! Diffusion itself: the noise schedule and the coefficients of each sampling step.

pub mod schedule;
