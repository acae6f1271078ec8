//! A golden file and its index, and the way between its layout (channels first) and ours (channels last).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::io::weights::Checkpoint;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// A golden file.
pub(super) struct Goldens {
    file: Checkpoint,
    index: Index,
    path: String,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    fixture_seed: u64,
    /// The parameters of what is trained, if something is, in the order of tables with a row for each.
    param_order: Option<Vec<String>>,
    tensors: BTreeMap<String, Entry>,
}

impl Index {
    /// An error when no name of what is to be computed contains this text.
    fn expect_some(&self, path: &Path, text: &str) -> Result<()> {
        let outputs = self.tensors.iter().filter(|(_, e)| e.role != "input");
        let names: Vec<&str> = outputs.map(|(name, _)| name.as_str()).collect();
        if names.iter().any(|name| name.contains(text)) {
            return Ok(());
        }
        let kinds = names.iter().filter_map(|name| name.split('/').next());
        let kinds: Vec<&str> = BTreeSet::from_iter(kinds).into_iter().collect();
        let (path, kinds) = (path.display(), kinds.join("/, "));
        let why = format!("no tensor of {path} contains `{text}`; there are those of {kinds}/");
        Err(Error::argument("--only", why))
    }
}

/// What the index says of one tensor.
#[derive(Deserialize)]
pub(super) struct Entry {
    pub(super) shape: Vec<usize>,
    pub(super) role: String,
    #[serde(default)]
    pub(super) desc: String,
    full_shape: Option<Vec<usize>>,
    crop: Option<String>,
    #[serde(default)]
    pub(super) params: BTreeMap<String, Value>,
    #[serde(default)]
    tol: BTreeMap<String, f64>,
    /// A table whose rows are judged each by itself.
    #[serde(default)]
    rowwise: bool,
    #[serde(default)]
    tol_median: BTreeMap<String, f64>,
}

impl Entry {
    /// Whether it is of a tensor of shape `have`, and cut from one that is not smaller.
    fn check(&self, have: &[usize]) -> Result<(), String> {
        let Entry {
            shape, full_shape, ..
        } = self;
        if shape != have || shape.contains(&0) {
            return Err(format!(
                "wanted the shape of the file, {have:?}, and no empty one, got {shape:?}"
            ));
        }
        let Some(full) = full_shape else {
            return Ok(());
        };
        let countable = full.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
        let larger = full.len() != shape.len() || shape.iter().zip(full).all(|(s, f)| s <= f);
        match countable.is_some() && larger {
            true => Ok(()),
            false => Err(format!(
                "wanted a `full_shape` that {shape:?} can be cut from, got {full:?}"
            )),
        }
    }
}

impl Goldens {
    /// Opens the file; of what it says is to be computed, only names that contain one of these texts are kept,
    /// or all when there are none.
    pub(super) fn open(path: &Path, only: &[String]) -> Result<Self> {
        let index_path = path.with_extension("index.json");
        let text = std::fs::read_to_string(&index_path).map_err(|e| {
            Error::file(
                &index_path,
                format!("the index of a golden file must stand beside it: {e}"),
            )
        })?;
        let mut index: Index = serde_json::from_str(&text).map_err(|e| {
            Error::config(
                index_path.display().to_string(),
                format!("is no index of goldens: {e}"),
            )
        })?;
        let file = Checkpoint::open_file(path)?;
        for (name, entry) in &index.tensors {
            let view = file
                .get(name)
                .ok_or_else(|| Error::weight(name, "is in the index but not in the golden file"))?;
            let why = |why| Error::weight(name, format!("{}: {why}", index_path.display()));
            entry.check(&view.shape).map_err(why)?;
        }
        for text in only {
            index.expect_some(path, text)?;
        }
        let kept = |name: &str| only.is_empty() || only.iter().any(|text| name.contains(text));
        index
            .tensors
            .retain(|name, entry| entry.role == "input" || kept(name));
        Ok(Goldens {
            file,
            index,
            path: path.display().to_string(),
        })
    }

    /// The seed of inputs that are generated rather than stored.
    pub(super) fn seed(&self) -> u64 {
        self.index.fixture_seed
    }

    pub(super) fn parameters(&self) -> &[String] {
        self.index.param_order.as_deref().unwrap_or_default()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.index.tensors.keys().map(String::as_str)
    }

    /// The names of what is to be computed.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &str> {
        self.index
            .tensors
            .iter()
            .filter(|(_, e)| e.role != "input")
            .map(|(n, _)| n.as_str())
    }

    pub(super) fn is_output(&self, name: &str) -> bool {
        self.index
            .tensors
            .get(name)
            .is_some_and(|e| e.role != "input")
    }

    pub(super) fn any(&self, prefix: &str) -> bool {
        self.names().any(|n| n.starts_with(prefix))
    }

    /// The distinct words between `prefix` and the next slash.
    pub(super) fn words(&self, prefix: &str) -> Vec<&str> {
        let mut words: Vec<&str> = self
            .names()
            .filter_map(|n| {
                n.strip_prefix(prefix)?
                    .split_once('/')
                    .map(|(word, _)| word)
            })
            .collect();
        words.dedup();
        words
    }

    pub(super) fn entry(&self, name: &str) -> Result<&Entry> {
        self.index.tensors.get(name).ok_or_else(|| {
            Error::config(
                &self.path,
                format!("`{name}` is needed to compute others and not there"),
            )
        })
    }

    /// The sizes of a tensor of `N` dimensions, none of them 0.
    pub(super) fn dims<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let shape = &self.entry(name)?.shape;
        let dims = shape.as_slice().try_into();
        dims.map_err(|_| Error::shape(name, format!("{N} dimensions"), format!("{shape:?}")))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.index.tensors.contains_key(name)
    }

    pub(super) fn values(&self, name: &str) -> Result<Vec<f64>> {
        self.entry(name)?;
        self.file.need(name)?.to_f64()
    }

    /// A stored tensor on the runtime: rank 4 from `[n, c, h, w]` to `[n, h, w, c]`, others as they are.
    pub(super) fn tensor(&self, cx: &Cx, name: &str) -> Result<Tensor> {
        upload(cx, &self.values(name)?, &self.entry(name)?.shape)
    }

    pub(super) fn tolerance(&self, name: &str, precision: &str) -> f64 {
        let entry = &self.index.tensors[name];
        entry.tol.get(precision).copied().unwrap_or(0.0)
    }

    /// The length of the rows of a table whose rows are judged each by itself, and the tolerance of the median one.
    pub(super) fn rows(&self, name: &str, precision: &str) -> Option<(usize, Option<f64>)> {
        let entry = self.index.tensors.get(name).filter(|entry| entry.rowwise)?;
        let len = *entry.shape.last()?;
        Some((len, entry.tol_median.get(precision).copied()))
    }

    /// The whole shape of a tensor that may be stored cropped.
    pub(super) fn full_shape(&self, name: &str) -> Result<Vec<usize>> {
        let entry = self.entry(name)?;
        Ok(entry
            .full_shape
            .clone()
            .unwrap_or_else(|| entry.shape.clone()))
    }

    /// Cuts whole values down to what is stored.
    pub(super) fn crop(&self, name: &str, values: Vec<f64>) -> Result<Vec<f64>> {
        let entry = self.entry(name)?;
        let (Some(full), true) = (&entry.full_shape, entry.crop.is_some()) else {
            return Ok(values);
        };
        if values.len() != full.iter().product::<usize>() || full.len() != entry.shape.len() {
            return Ok(values);
        }
        Ok(corner(&values, full, &entry.shape))
    }
}

/// The first `small` of each dimension of `full`.
pub(super) fn corner(values: &[f64], full: &[usize], small: &[usize]) -> Vec<f64> {
    let count = small.iter().product();
    let mut out = Vec::with_capacity(count);
    for i in 0..count {
        let (mut rest, mut at, mut stride) = (i, 0, 1);
        for (&f, &s) in full.iter().zip(small).rev() {
            at += rest % s * stride;
            rest /= s;
            stride *= f;
        }
        out.push(values[at]);
    }
    out
}

/// Values in the file's layout as a tensor.
pub(super) fn upload(cx: &Cx, values: &[f64], shape: &[usize]) -> Result<Tensor> {
    match *shape {
        [n, c, h, w] => cx.upload(&swap(values, n, c, h * w), [n, h, w, c]),
        [n, t, c] => cx.upload(values, [n, t, c]),
        [n, c] => cx.upload(values, [n, c]),
        [n] => cx.upload(values, [n]),
        _ => Err(Error::shape(
            "golden tensor",
            "1 to 4 dimensions",
            format!("{shape:?}"),
        )),
    }
}

/// A tensor in the file's layout: rank 4 to channels first.
pub(super) fn download(t: &Tensor) -> Result<Vec<f64>> {
    Ok(channels_first(t.shape(), t.to_f64()?))
}

/// A tensor's values in that layout.
pub(super) fn channels_first(shape: Shape, values: Vec<f64>) -> Vec<f64> {
    match *shape.dims() {
        [n, h, w, c] => swap(&values, n, h * w, c),
        _ => values,
    }
}

/// A tensor as the file has `full`, which may be tokens where ours is an image or the reverse.
pub(super) fn arrange(t: &Tensor, full: &[usize]) -> Result<Vec<f64>> {
    let (ours, per_sample) = (t.shape(), t.shape().per_sample());
    let (n, c) = (ours.samples(), ours.channels());
    let last_is_channels = match full {
        [_, _, _, _] => false,
        [_, a, b] => (*a, *b) == (per_sample / c, c),
        _ => true,
    };
    if full.iter().product::<usize>() != Shape::elements(&ours) {
        return Err(Error::shape("golden tensor", format!("{full:?}"), ours));
    }
    let values = t.to_f64()?;
    Ok(if last_is_channels {
        values
    } else {
        swap(&values, n, per_sample / c, c)
    })
}

/// `[n, a, b]` to `[n, b, a]`.
fn swap(values: &[f64], n: usize, a: usize, b: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(values.len());
    for sample in 0..n {
        let values = &values[sample * a * b..][..a * b];
        out.extend((0..b).flat_map(|j| (0..a).map(move |i| values[i * b + j])));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::weights::{Kind, Stored, write_safetensors};
    use crate::verify::{Report, Sink};

    fn open(entry: &str) -> Result<Goldens> {
        open_as("input", entry)
    }

    fn open_as(role: &str, entry: &str) -> Result<Goldens> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g.safetensors");
        let stored = Stored {
            name: "a",
            kind: Kind::F32,
            shape: &[1, 2, 3, 1],
            bytes: &[0; 24],
        };
        write_safetensors(&path, &[stored], &[]).unwrap();
        let index = format!("{{\"tensors\": {{\"a\": {{\"role\": \"{role}\", {entry}}}}}}}");
        std::fs::write(dir.path().join("g.index.json"), index).unwrap();
        Goldens::open(&path, &[])
    }

    #[test]
    fn an_index_that_is_not_of_the_file_is_refused() {
        let good = "\"shape\": [1, 2, 3, 1], \"crop\": \"corner\"";
        assert!(open(good).is_ok());
        let goldens = open(&format!("{good}, \"full_shape\": [1, 2, 3, 2]")).unwrap();
        let cropped = goldens.crop("a", (0..12).map(f64::from).collect());
        assert_eq!(cropped.unwrap(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        for entry in [
            "\"shape\": [1, 2, 3, 4]",
            "\"shape\": [6]",
            "\"shape\": []",
            "\"shape\": [0], \"rowwise\": true",
            "\"shape\": [1, 2, 3, 1], \"full_shape\": [1, 1, 3, 2]",
            "\"shape\": [1, 2, 3, 1], \"full_shape\": [18446744073709551615, 2, 3, 1]",
        ] {
            let error = open(entry).err().expect(entry).to_string();
            let named = error.contains("weight `a`") && error.contains("g.index.json: wanted");
            assert!(named, "{error}");
        }
    }

    /// Rows of too few values, or none at all, are not those of the table.
    #[test]
    fn rows_that_are_missing_are_infinitely_wrong() {
        let entry = "\"shape\": [1, 2, 3, 1], \"rowwise\": true, \"tol_median\": {\"fp32\": 1}";
        let goldens = open_as("output", entry).unwrap();
        for (got, want) in [(6, 0.0), (5, f64::INFINITY), (0, f64::INFINITY)] {
            let mut sink = Sink {
                goldens: &goldens,
                precision: "fp32",
                report: Report::default(),
                tell: &mut |_| (),
            };
            sink.put("a", vec![0.0; got]).unwrap();
            let errors: Vec<f64> = sink.report.rows.iter().map(|row| row.error).collect();
            assert_eq!(errors, [want, want], "{got} values");
        }
    }
}
