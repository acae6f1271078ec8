//! In which order the images of a training run come: every epoch all of them, in an order of its own.

use super::source::at_least_one;
use crate::error::Result;
use crate::rng::{Stream, image_key, stream_key};

/// Rounds of the permutation.
const ROUNDS: u32 = 8;

/// A permutation of all images for each epoch, a pure function of seed and epoch. One element costs the same for
/// any number of images and needs no memory: a Feistel network over the pairs of halves of an index, its rounds
/// keyed by Philox, walked until the result is an index again (Black and Rogaway, "Ciphers with arbitrary finite
/// domains", CT-RSA 2002).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    count: usize,
    key: u64,
    /// Bits of half an index.
    half: u32,
}

impl Order {
    /// An order of `count` images.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for no images.
    pub fn new(count: usize, seed: u64) -> Result<Self> {
        at_least_one(count)?;
        let bits = usize::BITS - (count - 1).leading_zeros();
        Ok(Order {
            count,
            key: stream_key(seed, image_key("order of training images")),
            half: bits.div_ceil(2).max(1),
        })
    }

    /// The image at a position, counted over all epochs.
    pub fn at(&self, position: u64) -> usize {
        let count = self.count as u64;
        self.permuted(position / count, position % count)
    }

    /// All images once, from the one at a position to the end of its epoch and on from the epoch's beginning.
    pub fn from(&self, position: u64) -> impl Iterator<Item = usize> + '_ {
        let count = self.count as u64;
        let (epoch, place) = (position / count, position % count);
        (place..count)
            .chain(0..place)
            .map(move |i| self.permuted(epoch, i))
    }

    fn permuted(&self, epoch: u64, place: u64) -> usize {
        let stream = Stream::new(self.key, epoch, 0);
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (place >> self.half, place & mask);
        loop {
            for round in 0..ROUNDS {
                let [word, ..] = stream.block(round, 0, right as u32);
                (left, right) = (right, left ^ (u64::from(word) & mask));
            }
            let index = (left << self.half) | right;
            if index < self.count as u64 {
                return index as usize;
            }
        }
    }
}
