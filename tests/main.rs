//! The integration tests, one module per theme.

mod cli;
mod gradients;
mod matrices;
mod ops;
mod oracle;
mod schedules;
mod verify;
