//! The integration tests, one module per theme.

mod matrices;
mod ops;
mod oracle;
mod schedules;
