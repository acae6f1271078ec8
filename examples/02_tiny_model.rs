//! Writes a tiny checkpoint with random weights, in diffusers' layout, to `target/tiny-sd2`: enough to
//! try every command without a download. Its pictures are noise; its numbers are checked by the tests.
//!
//! Run with `cargo run --release --example 02_tiny_model`.

use std::path::Path;

use posteriori::verify::recipe;

fn main() -> posteriori::Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = repository.join("target/tiny-sd2");
    recipe::rebuild(&repository.join("tests/data/checkpoints/tiny-sd2"), &out)?;
    println!("{}", out.display());
    Ok(())
}
