//! The integration tests, one module per theme.

mod matrices;
mod oracle;
mod schedules;
