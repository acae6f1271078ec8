//! Models in the diffusers folder layout, their fields named as in the checkpoint, and the tokenizer
//! that feeds the text encoder.
//!
//! To add one: one file here with a config struct, the layers, `new`, `forward` and `vjp`; a golden.

pub mod blocks;
pub mod config;
pub mod controlnet;
pub mod text;
pub mod tokenizer;
pub mod unet;
pub mod vae;
