//! Test support: the oracle's fixtures, and its tiny checkpoints rebuilt bit for bit from their recipes
//! (`tests/data`).
//!
//! A fixture's tensors and a checkpoint of the same name belong together: the fixtures are what an
//! independent float64 implementation computed from that checkpoint.

// not every build of the test binary uses every part of this support
#![allow(dead_code)]

pub(crate) mod checkpoint;
pub(crate) mod fixture;
mod recipe;

use std::path::PathBuf;

pub(crate) use checkpoint::{checkpoint, with_legacy_names};
pub(crate) use fixture::Fixture;

/// A path under `tests/data`.
pub(crate) fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(path)
}

/// Fails unless `|got - want| <= relative * |want| + absolute` everywhere; says where it is worst.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[f64], want: &[f64], relative: f64, absolute: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let excess = |i: &usize| (got[*i] - want[*i]).abs() / (relative * want[*i].abs() + absolute);
    let worst = (0..got.len()).max_by(|i, j| excess(i).total_cmp(&excess(j)));
    if let Some(i) = worst.filter(|i| got[*i] != want[*i]) {
        let share = excess(&i);
        assert!(
            share <= 1.0,
            "{what}[{i}]: got {:e}, want {:e}, {share:.2} of the bound",
            got[i],
            want[i]
        );
    }
}
