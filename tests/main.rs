//! The integration tests, one module per theme.

mod gradients;
mod matrices;
mod operators;
mod ops;
mod oracle;
mod schedules;
mod tasks;
mod verify;
