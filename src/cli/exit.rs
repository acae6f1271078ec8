//! Exit codes, in one place.
//! 0 done; 1 failed outside items; 2 usage or config; 3 some items failed, or are unknown to `verify`;
//! 4 no usable device; 5 the plan does not fit; 130 interrupted.

use std::sync::Arc;

use posteriori::Error;

pub(crate) const DONE: u8 = 0;
pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const ITEMS: u8 = 3;
pub(crate) const DEVICE: u8 = 4;
pub(crate) const PLAN: u8 = 5;
pub(crate) const INTERRUPTED: u8 = 130;

/// The code for an error that ends the program.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    let shared = || error.downcast_ref::<Arc<Error>>().map(|shared| &**shared);
    let ours = error.downcast_ref::<Error>().or_else(shared);
    ours.map_or(FAILED, of)
}

/// The code for an error of the library.
pub(crate) fn of(error: &Error) -> u8 {
    match error {
        Error::Argument { .. } | Error::Config { .. } => USAGE,
        Error::Device { .. } => DEVICE,
        Error::Plan { .. } | Error::TooLarge { .. } => PLAN,
        _ => FAILED,
    }
}
