//! Training: where its images come from.

pub mod data;
