//! Sums over a long depth for few outputs, cut into chunks: launches of the kernels around
//! `kernels/common/chunks.cuh`.

use crate::dtype::DType;
use crate::runtime::kernel::{Launch, Plan, Ptr};

/// Blocks that busy a GPU.
const ENOUGH: usize = 512;
/// The shortest chunk: its sums take longer than storing and adding them.
const SHORTEST: usize = 256;

/// The multiprocessors of an H200.
const MULTIPROCESSORS: usize = 132;
/// The shortest chunk of a product by tiles: storing and adding its sums takes two fifths of the time in which a busy GPU
/// multiplies it, and is lost at batches that busy one without a cut.
const SHORTEST_OF_TILES: usize = 1792;

/// How a depth is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    count: usize,
    each: usize,
}

impl Chunks {
    /// For outputs that take so many blocks.
    pub(super) fn new(blocks: usize, depth: usize) -> Self {
        let count = ENOUGH.div_ceil(blocks).min(depth.div_ceil(SHORTEST));
        Chunks::cut(depth, count)
    }

    /// For a product whose tiles over one sample are so many blocks: as many chunks as an H200 runs at once.
    pub(super) fn of_tiles(blocks: usize, depth: usize) -> Self {
        let count = (MULTIPROCESSORS / blocks).min(depth / SHORTEST_OF_TILES);
        Chunks::cut(depth, count.max(1))
    }

    /// Into whole steps of 32, but for the last chunk.
    fn cut(depth: usize, count: usize) -> Self {
        let each = depth.div_ceil(count).next_multiple_of(32);
        Chunks {
            count: depth.div_ceil(each),
            each,
        }
    }

    /// How many.
    pub(super) fn count(self) -> usize {
        self.count
    }

    /// A weight gradient of `len` elements, the op's arguments being `dw`, `x` and `dy`: `launch`, whose grid lacks the
    /// chunks and whose parameters lack the depth of one; then the sum of the chunks, if there are several.
    pub(super) fn plan(self, launch: Launch, len: usize) -> Plan {
        if self.count == 1 {
            return launch.ints([self.each]).into();
        }
        let sum = Launch::each("sum/parts", DType::F32, len)
            .pointers([Ptr::Arg(0), Ptr::Scratch(0)])
            .ints([len, self.count]);
        self.parts(launch, len, sum)
    }

    /// A product of `[rows, cols]`, the op's first three arguments being it and its operands: `launch`, as above; then
    /// the sum of the chunks and of `added`, a bias, a shift for each `sample_rows` rows, and a residual.
    pub(super) fn product(
        self,
        launch: Launch,
        [rows, cols]: [usize; 2],
        sample_rows: usize,
        added: [Ptr; 3],
    ) -> Plan {
        const PIECE: usize = 8;
        const THREADS: usize = 64;
        let [bias, shift, residual] = added;
        let blocks = (rows * cols).div_ceil(PIECE * THREADS);
        let grid = [blocks, 1, 1];
        let sum = Launch::new("sum/parts", launch.entry.dtype, grid, THREADS as u32)
            .part("products")
            .pointers([Ptr::Arg(0), Ptr::Scratch(0), bias, shift, residual])
            .ints([rows, cols, sample_rows, self.count]);
        self.parts(launch, rows * cols, sum)
    }

    /// `launch` leaves its sums of `len` elements for each chunk to `sum`.
    fn parts(self, launch: Launch, len: usize, sum: Launch) -> Plan {
        let mut launch = launch
            .pointers([Ptr::Scratch(0), Ptr::Arg(1), Ptr::Arg(2)])
            .ints([self.each]);
        launch.grid[2] = self.count as u32;
        Plan {
            launches: vec![launch, sum],
            scratch: self.count * len * size_of::<f32>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_depth() {
        for (blocks, depth) in [(1, 1), (1, 257), (3, 100_000), (40, 4096), (1000, 77)] {
            for Chunks { count, each } in
                [Chunks::new(blocks, depth), Chunks::of_tiles(blocks, depth)]
            {
                assert!((count - 1) * each < depth && depth <= count * each);
            }
        }
    }

    /// 16 x 16 and 32 x 32 pixels of Stable Diffusion's UNet by tiles of 128 x 128, 8 x 8 by those of 64 x 64.
    #[test]
    fn products_are_cut_into_what_runs_at_once() {
        let of = |blocks, depth| {
            let Chunks { count, each } = Chunks::of_tiles(blocks, depth);
            (count, each)
        };
        assert_eq!(of(20, 9 * 1280), (6, 1920));
        assert_eq!(of(40, 9 * 640), (3, 1920));
        assert_eq!(of(20, 9 * 2560), (6, 3840));
        assert_eq!(of(20, 1280), (1, 1280));
        assert_eq!(of(80, 9 * 1280), (1, 9 * 1280));
    }
}
