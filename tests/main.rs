//! The integration tests, one module per theme.

mod matrices;
mod operators;
mod ops;
mod oracle;
mod schedules;
mod tasks;
