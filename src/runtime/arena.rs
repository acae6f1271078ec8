//! Where transient tensors live: a deterministic best-fit allocator over one address range.
//!
//! The dry runtime runs it over addresses that do not exist and so learns how large the slab must
//! be; the runtime that does the work then runs the same allocator over a slab of exactly that size,
//! meets the same requests in the same order and gives out the same offsets. A block that is alive is
//! never given out twice, whatever the run does, so a run that leaves its plan fails with an error.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Error;

/// Every block starts at a multiple of this many bytes (a cache line, and the GPU's widest vector load).
pub const ALIGN: usize = 256;

/// Free ranges of one address range, best fit, coalescing.
#[derive(Debug)]
pub struct Arena {
    capacity: usize,
    by_offset: BTreeMap<usize, usize>,
    by_size: BTreeSet<(usize, usize)>,
    live: usize,
    peak_live: usize,
    peak: usize,
}

impl Arena {
    /// An arena over `capacity` bytes; `usize::MAX` for one that is only simulated.
    pub fn new(capacity: usize) -> Self {
        let mut arena = Arena {
            capacity,
            by_offset: BTreeMap::new(),
            by_size: BTreeSet::new(),
            live: 0,
            peak_live: 0,
            peak: 0,
        };
        // The last range has no end, whatever the capacity: best fit must choose as in the simulation.
        arena.give(0, usize::MAX);
        arena
    }

    /// The smallest free range that holds `bytes`, lowest address first; `None` when there is none.
    pub fn take(&mut self, bytes: usize) -> Option<usize> {
        let size = round_up(bytes)?;
        let &(have, offset) = self.by_size.range((size, 0)..).next()?;
        if offset.checked_add(size)? > self.capacity {
            return None;
        }
        self.by_size.remove(&(have, offset));
        self.by_offset.remove(&offset);
        if have > size {
            self.give(offset + size, have - size);
        }
        self.live += size;
        self.peak_live = self.peak_live.max(self.live);
        self.peak = self.peak.max(offset + size);
        Some(offset)
    }

    /// What it means that `take` found nothing.
    pub fn exhausted(&self, bytes: usize) -> Error {
        let (capacity, live) = (self.capacity, self.live);
        Error::Plan {
            why: format!(
                "the slab of {capacity} bytes has no free range of {bytes} bytes ({live} alive); this run differs \
                 from the one that was planned"
            ),
        }
    }

    /// Gives back what `take` returned for the same number of bytes.
    pub fn free(&mut self, offset: usize, bytes: usize) {
        let mut size = round_up(bytes).expect("`take` has counted as many");
        self.live -= size;
        let mut start = offset;
        if let Some((&before, &len)) = self.by_offset.range(..offset).next_back()
            && before + len == offset
        {
            self.drop_range(before, len);
            start = before;
            size += len;
        }
        if let Some(&len) = self.by_offset.get(&(start + size)) {
            self.drop_range(start + size, len);
            size += len;
        }
        self.give(start, size);
    }

    /// The slab that what was taken so far needs: one past the highest byte ever taken.
    pub fn peak(&self) -> usize {
        self.peak
    }

    /// The most bytes that were alive at once: what a perfect packing would need.
    pub fn peak_live(&self) -> usize {
        self.peak_live
    }

    /// Bytes alive now.
    pub fn live(&self) -> usize {
        self.live
    }

    fn give(&mut self, offset: usize, size: usize) {
        self.by_offset.insert(offset, size);
        self.by_size.insert((size, offset));
    }

    fn drop_range(&mut self, offset: usize, size: usize) {
        self.by_offset.remove(&offset);
        self.by_size.remove(&(size, offset));
    }
}

fn round_up(bytes: usize) -> Option<usize> {
    bytes.max(1).checked_next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Philox;

    #[test]
    fn neighbours_merge_back_into_one_range() {
        let mut arena = Arena::new(4096);
        let blocks: Vec<_> = (0..4).map(|_| arena.take(1000).unwrap()).collect();
        assert_eq!(blocks, [0, 1024, 2048, 3072]);
        assert_eq!(arena.take(1), None);
        for b in [2048, 0, 3072, 1024] {
            arena.free(b, 1000);
        }
        assert_eq!(arena.take(4096), Some(0));
        assert_eq!((arena.peak(), arena.live()), (4096, 4096));
    }

    /// The slab of the size that a simulation found serves the same requests at the same offsets.
    #[test]
    fn a_slab_of_the_simulated_size_is_enough() {
        let run = |capacity: usize| {
            let (mut arena, mut random) = (Arena::new(capacity), Philox::new(3));
            let (mut live, mut offsets) = (Vec::new(), Vec::new());
            for _ in 0..2000 {
                if live.len() > 12 {
                    let (offset, bytes) =
                        live.swap_remove(random.below(live.len() as u32) as usize);
                    arena.free(offset, bytes);
                }
                let bytes = 1 + random.below(50_000) as usize;
                let offset = arena
                    .take(bytes)
                    .expect("the simulation found this capacity");
                live.push((offset, bytes));
                offsets.push(offset);
            }
            (arena.peak(), offsets)
        };
        let simulated = run(usize::MAX);
        assert_eq!(run(simulated.0), simulated);
    }

    #[test]
    fn live_blocks_never_overlap() {
        let mut arena = Arena::new(usize::MAX);
        let mut random = Philox::new(7);
        let mut live: Vec<(usize, usize)> = Vec::new();
        for _ in 0..4000 {
            if live.len() > 20 || (!live.is_empty() && random.below(2) == 0) {
                let (offset, bytes) = live.swap_remove(random.below(live.len() as u32) as usize);
                arena.free(offset, bytes);
            } else {
                let bytes = 1 + random.below(100_000) as usize;
                let offset = arena.take(bytes).unwrap();
                assert_eq!(offset % ALIGN, 0);
                for &(o, b) in &live {
                    assert!(offset + bytes <= o || o + b <= offset);
                }
                live.push((offset, bytes));
            }
            assert!(arena.live() <= arena.peak_live() && arena.peak_live() <= arena.peak());
        }
    }
}
