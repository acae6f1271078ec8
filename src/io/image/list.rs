//! Which files of a folder are images, by extension.
//! Folders reached through a symbolic link are not entered, so a loop of links cannot trap the walk.
//! Hidden names are left out: they are other programs' notes and our own unfinished files.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Every extension that [`super::read`] can read.
const EXTENSIONS: &[&str] = &[
    "png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "pnm", "ppm", "pgm", "pbm", "pam",
];

/// The image files in a folder, and in the folders inside it if `recursive`: paths relative to `folder`, sorted.
pub fn list(folder: impl AsRef<Path>, recursive: bool) -> Result<Vec<PathBuf>> {
    let folder = folder.as_ref();
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(inner) = left.pop() {
        let here = if inner.as_os_str().is_empty() {
            folder.to_owned()
        } else {
            folder.join(&inner)
        };
        let cannot =
            |e: std::io::Error| Error::file(&here, format!("wanted a folder of images: {e}"));
        for entry in std::fs::read_dir(&here).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            // Of the entry itself, not of what a link points to.
            let kind = entry.file_type().map_err(cannot)?;
            if kind.is_dir() {
                if recursive {
                    left.push(inner.join(name));
                }
            } else if is_image(Path::new(&name)) && !entry.path().is_dir() {
                // A broken link stays in: reading it fails by name, leaving it out would lose it silently.
                found.push(inner.join(name));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_image(name: &Path) -> bool {
    let extension = name.extension().and_then(|e| e.to_str()).unwrap_or("");
    EXTENSIONS
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
}
