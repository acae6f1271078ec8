//! Weights: the tensors of a safetensors file, or of a component folder of a diffusers checkpoint.
//! Files stay mapped; a [`View`] is a name, a kind, a shape and the bytes where they lie.
//! File = u64 header length, JSON header {name: {dtype, shape, data_offsets}}, tensor bytes, little-endian.

mod header;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use safetensors::Dtype;
use serde::Deserialize;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::runtime::mapped::Mapped;

use header::{Unique, header};
pub use write::{Head, Stored, write_one_by_one, write_safetensors};

/// How a stored number is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE double precision.
    F64,
    /// 64-bit integers (`position_ids`, counters).
    I64,
    /// 32-bit integers.
    I32,
    /// Something the format knows and this engine does not read. An error only when it is asked for.
    Other(&'static str),
}

impl Kind {
    /// The name the file uses.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::F32 => "F32",
            Kind::F16 => "F16",
            Kind::BF16 => "BF16",
            Kind::F64 => "F64",
            Kind::I64 => "I64",
            Kind::I32 => "I32",
            Kind::Other(name) => name,
        }
    }

    /// The tensor element type with the same bytes, where there is one.
    pub const fn dtype(self) -> Option<DType> {
        match self {
            Kind::F32 => Some(DType::F32),
            Kind::F16 => Some(DType::F16),
            Kind::BF16 => Some(DType::Bf16),
            Kind::F64 => Some(DType::F64),
            Kind::I32 => Some(DType::I32),
            Kind::I64 | Kind::Other(_) => None,
        }
    }

    fn of(stored: Dtype) -> Self {
        match stored {
            Dtype::F32 => Kind::F32,
            Dtype::F16 => Kind::F16,
            Dtype::BF16 => Kind::BF16,
            Dtype::F64 => Kind::F64,
            Dtype::I64 => Kind::I64,
            Dtype::I32 => Kind::I32,
            Dtype::BOOL => Kind::Other("BOOL"),
            Dtype::U8 => Kind::Other("U8"),
            Dtype::I8 => Kind::Other("I8"),
            Dtype::U16 => Kind::Other("U16"),
            Dtype::I16 => Kind::Other("I16"),
            Dtype::U32 => Kind::Other("U32"),
            Dtype::U64 => Kind::Other("U64"),
            Dtype::F8_E4M3 => Kind::Other("F8_E4M3"),
            Dtype::F8_E5M2 => Kind::Other("F8_E5M2"),
            _ => Kind::Other("an exotic kind"),
        }
    }

    /// The crate's name and the bytes of one element; none for what is not written.
    fn stored(self) -> Option<(Dtype, usize)> {
        match self {
            Kind::F32 => Some((Dtype::F32, 4)),
            Kind::F16 => Some((Dtype::F16, 2)),
            Kind::BF16 => Some((Dtype::BF16, 2)),
            Kind::F64 => Some((Dtype::F64, 8)),
            Kind::I64 => Some((Dtype::I64, 8)),
            Kind::I32 => Some((Dtype::I32, 4)),
            Kind::Other(_) => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One tensor of a [`Checkpoint`], not copied.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The full name in the checkpoint.
    pub name: &'a str,
    /// How the numbers are encoded.
    pub dtype: Kind,
    /// The shape as stored: for weights, PyTorch's order.
    pub shape: Vec<usize>,
    /// The numbers, little-endian. Nothing promises that they are aligned for their kind.
    pub bytes: &'a [u8],
    /// The mapping the bytes lie in; hold it to keep them without a copy.
    pub file: &'a Arc<Mapped>,
    /// Where in the file the bytes lie: `file.bytes()[range]` is `bytes`.
    pub range: Range<usize>,
}

impl View<'_> {
    /// The first NaN or infinity and its index. Whole numbers have none; F64 is not looked through.
    pub fn not_finite(&self) -> Option<(usize, f32)> {
        fn find<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Option<(usize, f32)> {
            let numbers = bytes.as_chunks::<N>().0.iter().map(|&x| f(x));
            numbers.enumerate().find(|(_, x)| !x.is_finite())
        }
        match self.dtype {
            Kind::F32 => find(self.bytes, f32::from_le_bytes),
            Kind::F16 => find(self.bytes, |x| f16::from_le_bytes(x).to_f32()),
            Kind::BF16 => find(self.bytes, |x| bf16::from_le_bytes(x).to_f32()),
            _ => None,
        }
    }

    /// The numbers rounded to `f32`.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let b = self.bytes;
        Ok(match self.dtype {
            Kind::F32 => each(b, f32::from_le_bytes),
            Kind::F16 => each(b, |x| f16::from_le_bytes(x).to_f32()),
            Kind::BF16 => each(b, |x| bf16::from_le_bytes(x).to_f32()),
            Kind::F64 => each(b, |x| f64::from_le_bytes(x) as f32),
            Kind::I64 => each(b, |x| i64::from_le_bytes(x) as f32),
            Kind::I32 => each(b, |x| i32::from_le_bytes(x) as f32),
            Kind::Other(_) => return Err(self.unreadable()),
        })
    }

    /// The numbers as `f64`: exact from every kind but I64 beyond 2^53.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        let b = self.bytes;
        Ok(match self.dtype {
            Kind::F32 => each(b, |x| f64::from(f32::from_le_bytes(x))),
            Kind::F16 => each(b, |x| f16::from_le_bytes(x).to_f64()),
            Kind::BF16 => each(b, |x| bf16::from_le_bytes(x).to_f64()),
            Kind::F64 => each(b, f64::from_le_bytes),
            Kind::I64 => each(b, |x| i64::from_le_bytes(x) as f64),
            Kind::I32 => each(b, |x| f64::from(i32::from_le_bytes(x))),
            Kind::Other(_) => return Err(self.unreadable()),
        })
    }

    fn unreadable(&self) -> Error {
        Error::weight(
            self.name,
            format!(
                "is stored as {} in {}; wanted F32, F16, BF16, F64, I64 or I32: save the checkpoint again in one of these",
                self.dtype,
                self.file.path().display()
            ),
        )
    }
}

fn each<const N: usize, T>(bytes: &[u8], f: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&x| f(x)).collect()
}

#[derive(Debug)]
struct Entry {
    file: usize,
    kind: Kind,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// The tensors of one component folder or file.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<Arc<Mapped>>,
    entries: BTreeMap<String, Entry>,
    about: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a component folder (`unet/`, `vae/`, `text_encoder/` …): one file or shards, full precision
    /// before the fp16 variant. A path to a file is opened as [`Checkpoint::open_file`] does.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        if folder.is_file() {
            return Self::open_file(folder);
        }
        let found = list(folder)?;
        for variant in ["", ".fp16"] {
            for stem in ["diffusion_pytorch_model", "model"] {
                let single = format!("{stem}{variant}.safetensors");
                if found.contains(&single) {
                    return Self::open_file(folder.join(single));
                }
                // diffusers puts the variant before `.json`, transformers has done both.
                for index in [
                    format!("{stem}{variant}.safetensors.index.json"),
                    format!("{stem}.safetensors.index{variant}.json"),
                ] {
                    if found.contains(&index) {
                        return Self::open_shards(folder, &folder.join(index));
                    }
                }
            }
        }
        let pickled = [".bin", ".ckpt", ".pt", ".pth"];
        let why = match found
            .iter()
            .find(|n| pickled.iter().any(|p| n.ends_with(p)))
        {
            Some(name) => format!(
                "holds `{name}` but no .safetensors file, and pickled weights are not read; convert the checkpoint: \
                 load it in Python and call save_pretrained(folder, safe_serialization=True)"
            ),
            None => {
                "holds no weights: wanted diffusion_pytorch_model.safetensors, model.safetensors, \
                     one of them with .fp16, or a .safetensors.index.json beside its shards"
                    .to_owned()
            }
        };
        Err(Error::file(folder, why))
    }

    /// Opens one safetensors file.
    pub fn open_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut checkpoint = Checkpoint {
            path: path.to_owned(),
            files: Vec::new(),
            entries: BTreeMap::new(),
            about: BTreeMap::new(),
        };
        checkpoint.add(path)?;
        Ok(checkpoint)
    }

    fn open_shards(folder: &Path, index: &Path) -> Result<Self> {
        let text =
            std::fs::read(index).map_err(|e| Error::file(index, format!("cannot be read: {e}")))?;
        let parsed: Index = serde_json::from_slice(&text)
            .map_err(|e| Error::file(index, format!("is not a usable weight index: {e}")))?;
        let shards: BTreeSet<&String> = parsed.weight_map.0.values().collect();
        if shards.is_empty() {
            return Err(Error::file(index, "`weight_map` names no tensor"));
        }
        let mut checkpoint = Checkpoint {
            path: folder.to_owned(),
            files: Vec::new(),
            entries: BTreeMap::new(),
            about: BTreeMap::new(),
        };
        let mut order = BTreeMap::new();
        for shard in shards {
            // On every system alike, so that an index that works here works elsewhere.
            if shard.is_empty() || shard.contains(['/', '\\', ':', '\0']) || shard.starts_with("..")
            {
                let why =
                    format!("names the shard `{shard}`; wanted a file name in the same folder");
                return Err(Error::file(index, why));
            }
            let path = folder.join(shard);
            if !path.exists() {
                let why = format!("is missing; {} lists it as a shard", index.display());
                return Err(Error::file(path, why));
            }
            order.insert(shard, checkpoint.files.len());
            checkpoint.add(&path)?;
        }
        for (name, shard) in &parsed.weight_map.0 {
            let inside = checkpoint.entries.get(name).map(|e| e.file);
            if inside != order.get(shard).copied() {
                let why = format!("`weight_map` puts it in `{shard}`, which does not hold it");
                return Err(Error::weight(name, format!("{}: {why}", index.display())));
            }
        }
        Ok(checkpoint)
    }

    /// Maps one more file and takes in its tensors.
    fn add(&mut self, path: &Path) -> Result<()> {
        let mapped = Mapped::open(path)?;
        let (start, metadata) = header(mapped.bytes())
            .map_err(|why| Error::file(path, format!("is not a usable safetensors file: {why}")))?;
        for (name, info) in metadata.tensors() {
            let entry = Entry {
                file: self.files.len(),
                kind: Kind::of(info.dtype),
                shape: info.shape.clone(),
                range: start + info.data_offsets.0..start + info.data_offsets.1,
            };
            if let Some(old) = self.entries.get(&name) {
                let other = self.files[old.file].path().display();
                let why = format!("is in both {other} and {}", path.display());
                return Err(Error::weight(name, why));
            }
            self.entries.insert(name, entry);
        }
        self.about
            .extend(metadata.metadata().clone().unwrap_or_default());
        self.files.push(mapped);
        Ok(())
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<View<'_>> {
        let (name, entry) = self.entries.get_key_value(name)?;
        let file = &self.files[entry.file];
        Some(View {
            name,
            dtype: entry.kind,
            shape: entry.shape.clone(),
            bytes: &file.bytes()[entry.range.clone()],
            file,
            range: entry.range.clone(),
        })
    }

    /// The tensor of this name; an error if it is missing or stored as a kind that is not read.
    pub fn need(&self, name: &str) -> Result<View<'_>> {
        let view = self.get(name).ok_or_else(|| {
            let why = format!("is missing from {}", self.path.display());
            Error::weight(name, why)
        })?;
        match view.dtype {
            Kind::Other(_) => Err(view.unreadable()),
            _ => Ok(view),
        }
    }

    /// What the files say about themselves in `__metadata__`.
    pub fn about(&self) -> &BTreeMap<String, String> {
        &self.about
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The folder or file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mapped files, shards in the order of their names.
    pub fn files(&self) -> &[Arc<Mapped>] {
        &self.files
    }
}

/// The names of the files in a folder.
fn list(folder: &Path) -> Result<BTreeSet<String>> {
    let cannot = |e: std::io::Error| {
        Error::file(
            folder,
            format!("wanted a folder of weights, cannot be listed: {e}"),
        )
    };
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        // A name that is not UTF-8 is none of those looked for.
        if let Ok(name) = entry.map_err(cannot)?.file_name().into_string() {
            names.insert(name);
        }
    }
    Ok(names)
}

#[derive(Deserialize)]
struct Index {
    weight_map: Unique<String>,
}

#[cfg(test)]
mod tests;
