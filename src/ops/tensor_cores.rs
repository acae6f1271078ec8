//! Launches of matrix products on tensor cores: of the kernels around `kernels/common/tile.cuh`.

use crate::dtype::DType;
use crate::ops::chunks::Chunks;
use crate::runtime::kernel::Launch;

/// The outputs of a block: a square.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tile {
    /// 128 x 128: reads the least.
    Large,
    /// 64 x 64: more blocks for small products, less lost at edges.
    Small,
}

impl Tile {
    const fn size(self) -> usize {
        match self {
            Tile::Large => 128,
            Tile::Small => 64,
        }
    }

    /// Blocks that cover `[rows, cols]` outputs.
    fn blocks(self, outputs: [usize; 2]) -> [usize; 2] {
        outputs.map(|size| size.div_ceil(self.size()))
    }

    /// Whether one sample's `[rows, cols]` outputs are worth large tiles: enough of them to busy a GPU,
    /// and little of them beyond the edges.
    pub(super) fn is_large(outputs: [usize; 2]) -> bool {
        const ENOUGH: usize = 32;
        let blocks: usize = Tile::Large.blocks(outputs).iter().product();
        blocks >= ENOUGH && Tile::is_large_enough(outputs)
    }

    /// Whether little of the large tiles over `[rows, cols]` outputs is beyond the edges.
    pub(super) fn is_large_enough(outputs: [usize; 2]) -> bool {
        let blocks: usize = Tile::Large.blocks(outputs).iter().product();
        let covered = blocks * Tile::Large.size().pow(2);
        4 * covered <= 5 * outputs[0] * outputs[1]
    }

    /// How the depth of a product with few `[rows, cols]` outputs is cut.
    pub(super) fn chunks(self, outputs: [usize; 2], depth: usize) -> Chunks {
        Chunks::new(self.blocks(outputs).iter().product(), depth)
    }

    /// A launch for `[rows, cols]` outputs.
    pub(super) fn launch(self, module: &'static str, dtype: DType, outputs: [usize; 2]) -> Launch {
        const DEPTH: usize = 32;
        const STAGES: usize = 3;
        let (part, threads) = match self {
            Tile::Large => ("128", 256),
            Tile::Small => ("64", 128),
        };
        let [down, across] = self.blocks(outputs);
        Launch::new(module, dtype, [down, across, 1], threads)
            .part(part)
            .shared(STAGES * 2 * self.size() * DEPTH * dtype.size())
    }
}
