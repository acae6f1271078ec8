//! A folder in, a folder out: what a run has done (the journal), which images are its own (shards and claims).

pub mod claims;
pub mod journal;
pub mod shard;

/// The folder inside the output folder where a run keeps its notes.
pub const NOTES: &str = ".posteriori";
