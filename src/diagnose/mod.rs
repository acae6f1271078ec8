//! Diagnostics of the paper: what samplers do where the truth is known, what guidance makes of the score, how much
//! restorations differ.

pub mod diversity;
pub mod mixture;
pub mod plot;
pub mod score;
pub mod toy;
