//! The integration tests, one module per theme.

mod cli;
mod coordinates;
#[cfg(all(feature = "cuda", feature = "emu", target_os = "linux"))]
mod cuda;
mod diagnose;
mod gated;
mod gaussian;
mod gradients;
mod halves;
mod house;
mod layers;
mod matrices;
mod moments;
mod nonlinear;
mod offload;
mod operators;
mod ops;
mod oracle;
mod phase;
mod pipeline;
mod queue;
mod report;
mod schedules;
mod sizes;
mod steps;
mod study;
mod tasks;
mod training;
mod upsampling;
mod verify;
mod weight_gradients;
