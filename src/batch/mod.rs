//! A folder in, a folder out: what a run has done (the journal), which images are its own (shards and claims).

pub mod claims;
pub mod journal;
pub(crate) mod notes;
pub mod shard;

/// This program and its version, as notes and records have it.
pub const ENGINE: &str = concat!("posteriori ", env!("CARGO_PKG_VERSION"));

/// The folder inside the output folder where a run keeps its notes.
pub const NOTES: &str = ".posteriori";
