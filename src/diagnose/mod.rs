//! Diagnostics of the paper: what samplers do where the truth is known.

pub mod mixture;
pub mod plot;
pub mod toy;
