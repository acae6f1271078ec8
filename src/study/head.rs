//! What the results of a study depend on, in a file beside them: results of another model, of other images, in another
//! precision or by another version must not stand beside each other in one table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Cell, Study};
use crate::batch::notes::{self, Notes, hex};
use crate::batch::{ENGINE, NOTES};
use crate::error::{Error, Result};
use crate::pipeline::device::Device;
use crate::pipeline::prior::{fingerprint, model_fingerprint};
use crate::rng::{digest, image_key};
use crate::train::data::Source;

/// What the names of images begin with.
const IMAGE: &str = "image ";

fn path(folder: &Path) -> PathBuf {
    folder.join(NOTES).join("study.json")
}

/// What the results of a study on a device depend on. Reads all weights and all images.
pub(super) fn of(study: &Study, device: &Device) -> Result<Notes> {
    let mut head = Notes::new();
    let mut add = |name: String, text: String| drop(head.insert(name, text));
    add("engine".into(), ENGINE.into());
    add("--model".into(), hex(model_fingerprint(&study.model)?));
    add("--device".into(), device.rt().name().into());
    add("--precision".into(), device.precision().to_string());
    let variants = study.variants.iter();
    let variants: Vec<String> = variants.map(|(op, name)| format!("{op}={name}")).collect();
    add("--variant".into(), variants.join(","));
    add("noise".into(), study.noise.to_string());
    let mut estimators = BTreeMap::new();
    for (c, Cell { row, job, cse }) in study.cells.iter().enumerate() {
        let place = format!("row `{row}` on {}, cell {}", job.task, c + 1);
        if let Some(folder) = cse {
            let known = estimators.get(folder).copied();
            let print = known.map_or_else(|| fingerprint(folder), Ok)?;
            estimators.insert(folder, print);
            add(format!("{place}: --cse"), hex(print));
        }
        // A file is known by what it says.
        let mut job = job.clone();
        job.task = job.task.written_out()?;
        add(place, hex(digest(0, format!("{job:?}").as_bytes())));
    }
    let count = study.images.count();
    let images = match &study.images {
        Source::Scenes { seed, .. } => {
            let [h, w] = study.size;
            format!("{count} scenes of seed {seed}, {h}x{w}")
        }
        Source::Folder(_) => {
            let mut names = Vec::new();
            for i in 0..count {
                let name = study.images.name(i)?;
                let file = study.images.digest(i)?;
                let file = file.map_or_else(|| "unreadable".into(), hex);
                add(format!("{IMAGE}{name}"), file);
                names.push(name);
            }
            format!("{count} of a folder, {}", hex(image_key(&names.join("\n"))))
        }
    };
    add("images".into(), images);
    Ok(head)
}

/// Refuses results that depend on something else. `images` are those that have a result: one that has none may change, and where
/// none has any, everything may.
pub(super) fn agree(folder: &Path, head: &Notes, images: &BTreeSet<&str>) -> Result<()> {
    const WAY: &str = "choose another folder";
    if images.is_empty() {
        return Ok(());
    }
    let path = path(folder);
    let why = format!("is missing, so what the results are of cannot be told; {WAY}");
    let there =
        notes::read(&path)?.ok_or_else(|| Error::config(path.display().to_string(), why))?;
    let matter = |notes: &Notes| -> Notes {
        let of = |name: &str| {
            name.strip_prefix(IMAGE)
                .is_none_or(|image| images.contains(image))
        };
        let kept = notes.iter().filter(|(name, _)| of(name));
        kept.map(|(name, text)| (name.clone(), text.clone()))
            .collect()
    };
    notes::agree(&path, &matter(&there), &matter(head), WAY)
}

/// Writes it down.
pub(super) fn write(folder: &Path, head: &Notes) -> Result<()> {
    notes::write(&path(folder), head)
}
