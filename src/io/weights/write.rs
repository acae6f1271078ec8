//! Writing a safetensors file: training's checkpoints and ControlNets.
//! Straight from the caller's bytes, widest kind first, through [`write_atomic`].
//! Everything is checked before the file is made.

use std::collections::BTreeSet;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};

use super::Kind;
use super::header::LENGTH;
use crate::error::{Error, Result};
use crate::io::atomic::{failed, write_atomic};

/// A tensor to write.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// The full name in the file.
    pub name: &'a str,
    /// How `bytes` are encoded.
    pub kind: Kind,
    /// The shape.
    pub shape: &'a [usize],
    /// The numbers, little-endian.
    pub bytes: &'a [u8],
}

/// Writes a safetensors file, atomically. `about` goes into its `__metadata__`.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[Stored<'_>],
    about: &[(String, String)],
) -> Result<()> {
    let path = path.as_ref();
    let mut order = Vec::with_capacity(tensors.len());
    let mut seen = BTreeSet::new();
    for tensor in tensors {
        if tensor.name == "__metadata__" || !seen.insert(tensor.name) {
            return Err(Error::weight(tensor.name, "is reserved or comes twice"));
        }
        let Some((stored, size)) = tensor.kind.stored() else {
            let why = format!("cannot be written as {}", tensor.kind);
            return Err(Error::weight(tensor.name, why));
        };
        let want = tensor.shape.iter().try_fold(size, |n, &d| n.checked_mul(d));
        if want != Some(tensor.bytes.len()) {
            let want = format!("{:?} of {}", tensor.shape, tensor.kind);
            let got = format!("{} bytes", tensor.bytes.len());
            return Err(Error::shape(format!("weight `{}`", tensor.name), want, got));
        }
        order.push((stored, tensor));
    }
    // Widest kind first keeps every tensor aligned, as the crate's own writer does.
    order.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.name.cmp(b.1.name)));
    let mut offset = 0;
    let infos = order.iter().map(|(dtype, tensor)| {
        let start = offset;
        offset += tensor.bytes.len();
        let info = TensorInfo {
            dtype: *dtype,
            shape: tensor.shape.to_vec(),
            data_offsets: (start, offset),
        };
        (tensor.name.to_owned(), info)
    });
    let about = (!about.is_empty()).then(|| about.iter().cloned().collect());
    let unfit = |e: String| Error::file(path, format!("the header cannot be made: {e}"));
    let metadata = Metadata::new(about, infos.collect()).map_err(|e| unfit(e.to_string()))?;
    // By way of a `Value`, which sorts its keys: those of `about` are in a hash map there, in another order each time.
    let sorted = serde_json::to_value(&metadata).map_err(|e| unfit(e.to_string()))?;
    let mut json = sorted.to_string().into_bytes();
    json.resize(json.len().next_multiple_of(LENGTH), b' ');
    write_atomic(path, |w| {
        let length = (json.len() as u64).to_le_bytes();
        w.write_all(&length).map_err(failed(path))?;
        w.write_all(&json).map_err(failed(path))?;
        for (_, tensor) in &order {
            w.write_all(tensor.bytes).map_err(failed(path))?;
        }
        Ok(())
    })
}
