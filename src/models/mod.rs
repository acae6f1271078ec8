//! The networks of a checkpoint, and the tokenizer that feeds the text encoder.

pub mod tokenizer;
