//! Writing a safetensors file: training's checkpoints and ControlNets.
//! Straight from the caller's bytes, widest kind first, through [`write_atomic`].

use std::borrow::Cow;
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

/// What a file's header says of a tensor.
#[derive(Clone, Debug)]
pub struct Head {
    /// The full name in the file.
    pub name: String,
    /// How its numbers are encoded.
    pub kind: Kind,
    /// The shape.
    pub shape: Vec<usize>,
}

/// Writes a safetensors file, atomically. `about` goes into its `__metadata__`.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[Stored<'_>],
    about: &[(String, String)],
) -> Result<()> {
    let head = |tensor: &Stored<'_>| Head {
        name: tensor.name.into(),
        kind: tensor.kind,
        shape: tensor.shape.to_vec(),
    };
    let heads: Vec<Head> = tensors.iter().map(head).collect();
    write_one_by_one(path, &heads, about, |i| Ok(Cow::Borrowed(tensors[i].bytes)))
}

/// The same with the numbers of one tensor in memory at a time: `bytes(i)` are those of `heads[i]`, asked for once
/// each, in the order of the file.
pub fn write_one_by_one<'a>(
    path: impl AsRef<Path>,
    heads: &[Head],
    about: &[(String, String)],
    mut bytes: impl FnMut(usize) -> Result<Cow<'a, [u8]>>,
) -> Result<()> {
    let path = path.as_ref();
    let mut order = Vec::with_capacity(heads.len());
    let mut seen = BTreeSet::new();
    for (i, head) in heads.iter().enumerate() {
        if head.name == "__metadata__" || !seen.insert(&head.name) {
            return Err(Error::weight(&head.name, "is reserved or comes twice"));
        }
        let Some((stored, size)) = head.kind.stored() else {
            let why = format!("cannot be written as {}", head.kind);
            return Err(Error::weight(&head.name, why));
        };
        let len = head.shape.iter().try_fold(size, |n, &d| n.checked_mul(d));
        let Some(len) = len else {
            let got = format!("{:?} of {}", head.shape, head.kind);
            let what = format!("weight `{}`", head.name);
            return Err(Error::shape(what, "one that a file can hold", got));
        };
        order.push((stored, i, len));
    }
    // Widest kind first keeps every tensor aligned, as the crate's own writer does.
    order.sort_by(|a, b| b.0.cmp(&a.0).then(heads[a.1].name.cmp(&heads[b.1].name)));
    let mut offset = 0;
    let infos = order.iter().map(|&(dtype, i, len)| {
        let start = offset;
        offset += len;
        let info = TensorInfo {
            dtype,
            shape: heads[i].shape.clone(),
            data_offsets: (start, offset),
        };
        (heads[i].name.clone(), info)
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
        for &(_, i, len) in &order {
            let bytes = bytes(i)?;
            if bytes.len() != len {
                let Head { name, kind, shape } = &heads[i];
                let (want, got) = (
                    format!("{shape:?} of {kind}"),
                    format!("{} bytes", bytes.len()),
                );
                return Err(Error::shape(format!("weight `{name}`"), want, got));
            }
            w.write_all(&bytes).map_err(failed(path))?;
        }
        Ok(())
    })
}
