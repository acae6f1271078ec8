//! Where arithmetic runs and memory lives: the only folder that holds `unsafe`.

pub mod mapped;
