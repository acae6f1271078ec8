//! Which files of a folder are images, by extension.
//! Folders reached through a symbolic link are not entered, so a loop of links cannot trap the walk.
//! Hidden names are left out: they are other programs' notes and our own unfinished files.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Every extension that [`super::read`] can read.
const EXTENSIONS: &[&str] = &[
    "png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "pnm", "ppm", "pgm", "pbm", "pam",
];

/// What a folder holds.
#[derive(Debug, Default)]
pub struct Listed {
    /// The image files: paths relative to the folder, sorted.
    pub images: Vec<PathBuf>,
    /// The folders inside it that could not be read, relative and sorted as well, with why.
    pub unread: Vec<(PathBuf, Error)>,
}

/// The image files in a folder, and in the folders inside it if `recursive`: paths relative to `folder`, sorted.
///
/// # Errors
/// [`Error::File`] when the folder, or one inside it, cannot be read.
pub fn list(folder: impl AsRef<Path>, recursive: bool) -> Result<Vec<PathBuf>> {
    let Listed { images, unread } = list_readable(folder, recursive)?;
    match unread.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(images),
    }
}

/// The same of what can be read.
///
/// # Errors
/// [`Error::File`] when the folder itself cannot be read.
pub fn list_readable(folder: impl AsRef<Path>, recursive: bool) -> Result<Listed> {
    let folder = folder.as_ref();
    let mut listed = Listed::default();
    let mut left = vec![PathBuf::new()];
    while let Some(inner) = left.pop() {
        let is_root = inner.as_os_str().is_empty();
        let here = match is_root {
            true => folder.to_owned(),
            false => folder.join(&inner),
        };
        if let Err(e) = look_into(&here, &inner, recursive, &mut left, &mut listed.images) {
            let error = Error::file(&here, format!("wanted a folder of images: {e}"));
            if is_root {
                return Err(error);
            }
            listed.unread.push((inner, error));
        }
    }
    listed.images.sort();
    listed.unread.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(listed)
}

/// Finds the images of one folder, and those folders inside it that are to be looked into.
fn look_into(
    here: &Path,
    inner: &Path,
    recursive: bool,
    left: &mut Vec<PathBuf>,
    found: &mut Vec<PathBuf>,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(here)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // Of the entry itself, not of what a link points to.
        if entry.file_type()?.is_dir() {
            if recursive {
                left.push(inner.join(name));
            }
        } else if is_image(Path::new(&name)) && !entry.path().is_dir() {
            // A broken link stays in: reading it fails by name, leaving it out would lose it silently.
            found.push(inner.join(name));
        }
    }
    Ok(())
}

fn is_image(name: &Path) -> bool {
    let extension = name.extension().and_then(|e| e.to_str()).unwrap_or("");
    EXTENSIONS
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
}
