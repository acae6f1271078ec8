//! The oracle's reference tensors: `tests/data/fixtures/<name>.safetensors`.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// One fixture file, in memory.
pub(crate) struct Fixture {
    bytes: Vec<u8>,
    what: String,
}

impl Fixture {
    /// Opens `tests/data/fixtures/<name>.safetensors`.
    pub(crate) fn open(name: &str) -> Self {
        Self::read(&super::data(&format!("fixtures/{name}.safetensors")))
    }

    /// Opens a safetensors file.
    pub(crate) fn read(path: &Path) -> Self {
        let what = path.display().to_string();
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{what}: {e}"));
        Fixture { bytes, what }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap_or_else(|e| panic!("{}: {e}", self.what))
    }

    /// The names of the tensors, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let tensors = self.tensors();
        let mut names: Vec<String> = tensors.names().iter().map(|n| n.to_string()).collect();
        names.sort();
        names
    }

    /// The shape of a tensor, images and activations NCHW.
    pub(crate) fn shape(&self, name: &str) -> Vec<usize> {
        self.tensor(name).0
    }

    /// The elements of a tensor in C order, widened to f64 whatever their type.
    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        self.tensor(name).1
    }

    /// Shape and elements of a tensor.
    pub(crate) fn tensor(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let tensors = self.tensors();
        let view = tensors
            .tensor(name)
            .unwrap_or_else(|e| panic!("{}: {name}: {e}", self.what));
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F64 => read(data, f64::from_le_bytes),
            Dtype::F32 => read(data, |b| f64::from(f32::from_le_bytes(b))),
            Dtype::I64 => read(data, |b| i64::from_le_bytes(b) as f64),
            Dtype::I32 => read(data, |b| f64::from(i32::from_le_bytes(b))),
            other => panic!("{}: {name} has dtype {other:?}", self.what),
        };
        (view.shape().to_vec(), values)
    }
}

fn read<const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|chunk| from(*chunk))
        .collect()
}
