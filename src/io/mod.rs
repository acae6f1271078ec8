//! Files: the only place that knows the safetensors and image crates.
