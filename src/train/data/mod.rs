//! Training images. A [`Source`] has them; an [`Order`] says which comes at a position, counted over all epochs;
//! an [`Augment`] makes one crop of it; [`Batches`] does all three, skipping what cannot be used.
//!
//! Whatever is drawn is a pure function of the seed and the position, so training goes on from any position
//! with nothing stored, and gives the same images on any number of threads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::io::image::Image;

mod augment;
mod jitter;
mod order;
mod source;

pub use augment::Augment;
pub use order::Order;
pub use source::{Folder, Source};

/// An image that is not trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its name in the source.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

/// Images that cannot be used, and why.
type Unusable = BTreeMap<usize, String>;

/// The images of a training run, batch by batch.
#[derive(Debug)]
pub struct Batches {
    source: Source,
    order: Order,
    augment: Augment,
    seed: u64,
    /// The images that turned out to be unusable, and why: they are read and reported only once.
    unusable: Mutex<Arc<Unusable>>,
}

impl Batches {
    /// The images of `source`, in an order and with augmentations that follow from `seed`.
    ///
    /// # Errors
    /// [`Error::Argument`] for an augmentation that cannot be meant, and for scenes of a size that cannot be drawn.
    pub fn new(source: Source, augment: Augment, seed: u64) -> Result<Self> {
        augment.check()?;
        if let Source::Scenes { .. } = &source {
            source.get(0, augment.size)?;
        }
        Ok(Batches {
            order: Order::new(source.count(), seed)?,
            source,
            augment,
            seed,
            unusable: Mutex::default(),
        })
    }

    /// Where the images come from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The images at positions `first .. first + n`, each `augment.size` large, and the images that were found to be
    /// unusable on the way, each told once in the life of `self`. In the place of such an image stands the next
    /// usable one of its epoch.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Argument`] with the name of the source when none of its images can be used.
    pub fn batch(&self, first: u64, n: usize) -> Result<(Vec<Image>, Vec<Skipped>)> {
        let known = self.unusable().clone();
        let found: Vec<_> = (0..n as u64)
            .into_par_iter()
            .map(|i| self.at(first.wrapping_add(i), &known))
            .collect();
        let (mut images, mut skipped) = (Vec::with_capacity(n), Vec::new());
        for found in found {
            let (image, failed) = found?;
            images.push(image);
            for (index, why) in failed {
                let mut unusable = self.unusable();
                if !unusable.contains_key(&index) {
                    Arc::make_mut(&mut unusable).insert(index, why.clone());
                    let name = self.source.name(index)?;
                    skipped.push(Skipped { name, why });
                }
            }
        }
        Ok((images, skipped))
    }

    fn unusable(&self) -> MutexGuard<'_, Arc<Unusable>> {
        self.unusable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image at a position, and the ones before it in the order of the epoch that turned out to be unusable.
    fn at(&self, position: u64, known: &Unusable) -> Result<(Image, Unusable)> {
        let mut failed = Unusable::new();
        let mut last = None;
        for index in self.order.from(position) {
            if let Some(why) = known.get(&index) {
                last = Some((index, why.clone()));
                continue;
            }
            let image = self.source.get(index, self.augment.size);
            let image = image.and_then(|image| self.augment.apply(&image, self.seed, position));
            let why = match image {
                Ok(image) => return Ok((image, failed)),
                Err(Error::File { why, .. }) => why,
                Err(other) => other.to_string(),
            };
            failed.insert(index, why.clone());
            last = Some((index, why));
        }
        let count = self.source.count();
        let mut all = format!("none of the {count} training images can be used");
        if let Some((index, why)) = last {
            all = format!("{all}; the last, {}: {why}", self.source.name(index)?);
        }
        Err(self.source.unusable(all))
    }
}

#[cfg(test)]
mod tests;
