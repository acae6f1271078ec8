//! Where training images come from: a folder of files, or scenes made from a seed.

use std::path::{Path, PathBuf};

use super::order::Order;
use crate::error::{Error, Result};
use crate::io::image::{Image, list, read};
use crate::rng::{digest, image_key, stream_key};
use crate::scenes;

/// Images by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The image files in a folder and the folders inside it.
    Folder(Folder),
    /// Scenes `0 .. count` of a seed, see [`scenes::render`].
    Scenes {
        /// The seed of the scenes.
        seed: u64,
        /// How many there are.
        count: usize,
    },
}

/// The image files of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    root: PathBuf,
    /// Relative to the root.
    paths: Vec<PathBuf>,
}

impl Source {
    /// The images in a folder and the folders inside it, sorted by their relative paths.
    ///
    /// # Errors
    /// [`Error::File`] when there is no such folder, or no image in it.
    pub fn folder(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref().to_owned();
        let paths = list(&root, true)?;
        if paths.is_empty() {
            let why = "holds no images; wanted PNG, JPEG, WebP, TIFF, BMP or PNM files, here or in folders inside";
            return Err(Error::file(root, why));
        }
        Ok(Source::Folder(Folder { root, paths }))
    }

    /// These files of a folder, in this order, by their paths in it.
    ///
    /// # Errors
    /// [`Error::Argument`] for no files.
    pub fn files(root: impl AsRef<Path>, paths: Vec<PathBuf>) -> Result<Self> {
        at_least_one(paths.len())?;
        let root = root.as_ref().to_owned();
        Ok(Source::Folder(Folder { root, paths }))
    }

    /// Scenes `0 .. count` of a seed.
    ///
    /// # Errors
    /// [`Error::Argument`] for no scenes.
    pub fn scenes(seed: u64, count: usize) -> Result<Self> {
        at_least_one(count)?;
        Ok(Source::Scenes { seed, count })
    }

    /// How many images there are.
    pub fn count(&self) -> usize {
        match self {
            Source::Folder(folder) => folder.paths.len(),
            Source::Scenes { count, .. } => *count,
        }
    }

    /// The name of image `i`: its path in the folder, with `/` between the parts, or the number of the scene.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no image of this number.
    pub fn name(&self, i: usize) -> Result<String> {
        self.has(i)?;
        Ok(match self {
            Source::Folder(folder) => {
                let parts = folder.paths[i].iter().map(|part| part.to_string_lossy());
                parts.collect::<Vec<_>>().join("/")
            }
            Source::Scenes { seed, .. } => format!("scene {i} of seed {seed}"),
        })
    }

    /// Image `i`: the whole file, or the scene painted at `[height, width]` pixels.
    ///
    /// # Errors
    /// [`Error::File`] when the file cannot be read, [`Error::Argument`] when there is no image of this number
    /// or the scene cannot be that large or small.
    pub fn get(&self, i: usize, size: [usize; 2]) -> Result<Image> {
        self.has(i)?;
        match self {
            Source::Folder(folder) => read(folder.root.join(&folder.paths[i])),
            Source::Scenes { seed, .. } => scenes::render(*seed, i as u64, size),
        }
    }

    /// A number made of the bytes of image `i`'s file; none of one that cannot be read, and of a scene.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no image of this number.
    pub fn digest(&self, i: usize) -> Result<Option<u64>> {
        self.has(i)?;
        Ok(match self {
            Source::Folder(folder) => {
                let bytes = std::fs::read(folder.root.join(&folder.paths[i])).ok();
                bytes.map(|bytes| digest(bytes.len() as u64, &bytes))
            }
            Source::Scenes { .. } => None,
        })
    }

    /// The first `n` of the images shuffled by a seed, as the paper's n-shot sets are made; of scenes, which are
    /// random as they are, the first `n`. A smaller subset of the same seed is part of a larger one.
    ///
    /// # Errors
    /// [`Error::Argument`] for no images, or more than there are.
    pub fn subset(&self, n: usize, seed: u64) -> Result<Self> {
        let count = self.count();
        if !(1..=count).contains(&n) {
            let why = format!("wanted 1 to {count} images, as many as there are, got {n}");
            return Err(Error::argument("subset of the training images", why));
        }
        Ok(match self {
            Source::Folder(Folder { root, paths }) => {
                let order = Order::new(count, stream_key(seed, image_key("subset")))?;
                Source::Folder(Folder {
                    root: root.clone(),
                    paths: order.from(0).take(n).map(|i| paths[i].clone()).collect(),
                })
            }
            Source::Scenes { seed, .. } => Source::Scenes {
                seed: *seed,
                count: n,
            },
        })
    }

    /// An error that names the source.
    pub(super) fn unusable(&self, why: String) -> Error {
        match self {
            Source::Folder(folder) => Error::file(&folder.root, why),
            Source::Scenes { seed, .. } => Error::argument(format!("scenes of seed {seed}"), why),
        }
    }

    fn has(&self, i: usize) -> Result<()> {
        let count = self.count();
        if i < count {
            return Ok(());
        }
        let why = format!("wanted a number below {count}, as there are so many, got {i}");
        Err(Error::argument("training image", why))
    }
}

/// An empty set of training images is an error.
pub(super) fn at_least_one(count: usize) -> Result<()> {
    if count > 0 {
        return Ok(());
    }
    Err(Error::argument(
        "training images",
        "wanted at least one, got none",
    ))
}
