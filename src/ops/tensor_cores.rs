//! Launches of matrix products on tensor cores: of the kernels around `kernels/common/tile.cuh`, `warpgroup.cuh`,
//! `patches90.cuh` and `halo90.cuh`.

use crate::dtype::DType;
use crate::ops::chunks::Chunks;
use crate::runtime::kernel::Launch;

/// The outputs of a block.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tile {
    /// 128 x 128: reads the least.
    Large,
    /// 64 x 64: more blocks for small products, less lost at edges.
    Small,
    /// 128 x 128 by wgmma.
    Warpgroups,
    /// 128 x 256 by wgmma: reads three quarters of that for an output.
    WideWarpgroups,
    /// 128 x 128 by TMA and wgmma.
    Patches,
    /// 128 x 256 by TMA and wgmma.
    WidePatches,
    /// 256 x 128 by TMA and wgmma: a convolution's pixels once for all taps.
    Halo,
}

/// Rows and columns of a patch of pixels.
pub(super) const PATCH: [usize; 2] = [8, 16];
/// More than half as many as an H200 has multiprocessors.
const ENOUGH_WIDE: usize = 67;
/// Channels of a step of the copy engine.
const DEPTH: usize = 64;
/// Pixels around a tile of [`Tile::Halo`] that taps reach.
const REACH: usize = 2;

impl Tile {
    /// Rows and columns.
    const fn size(self) -> [usize; 2] {
        match self {
            Tile::Large | Tile::Warpgroups | Tile::Patches => [128, 128],
            Tile::Small => [64, 64],
            Tile::WideWarpgroups | Tile::WidePatches => [128, 256],
            Tile::Halo => [256, 128],
        }
    }

    /// Columns.
    pub(super) const fn cols(self) -> u32 {
        self.size()[1] as u32
    }

    /// Blocks that cover `[rows, cols]` outputs.
    fn blocks(self, outputs: [usize; 2]) -> [usize; 2] {
        let [rows, cols] = self.size();
        [outputs[0].div_ceil(rows), outputs[1].div_ceil(cols)]
    }

    /// Whether one sample's `[rows, cols]` outputs are worth large tiles: enough of them to busy a GPU,
    /// and little of them beyond the edges.
    pub(super) fn is_large(outputs: [usize; 2]) -> bool {
        Tile::are_large(1, outputs)
    }

    /// Whether those of so many products in one launch are.
    pub(super) fn are_large(products: usize, outputs: [usize; 2]) -> bool {
        const ENOUGH: usize = 32;
        let blocks: usize = Tile::Large.blocks(outputs).iter().product();
        products * blocks >= ENOUGH && Tile::is_large_enough(outputs)
    }

    /// Whether little of the large tiles over `[rows, cols]` outputs is beyond the edges.
    pub(super) fn is_large_enough(outputs: [usize; 2]) -> bool {
        let blocks: usize = Tile::Large.blocks(outputs).iter().product();
        let [rows, cols] = Tile::Large.size();
        4 * blocks * rows * cols <= 5 * outputs[0] * outputs[1]
    }

    /// Whether one sample's `[rows, cols]` outputs are worth wide tiles: so many that large ones would not all run at once,
    /// and no more beyond the edges than of these.
    pub(super) fn is_wide(outputs: [usize; 2]) -> bool {
        let [down, across] = Tile::WideWarpgroups.blocks(outputs);
        let none_is_half = Tile::Large.blocks(outputs)[1] == 2 * across;
        down * across >= ENOUGH_WIDE && none_is_half && Tile::is_large_enough(outputs)
    }

    /// Whether one sample's `[pixels, channels]` outputs are worth tiles of [`Tile::Halo`]: as many as of wide ones.
    pub(super) fn is_worth_a_halo(outputs: [usize; 2]) -> bool {
        let blocks: usize = Tile::Halo.blocks(outputs).iter().product();
        blocks >= ENOUGH_WIDE && Tile::is_large_enough(outputs)
    }

    /// How the depth of a weight gradient with few `[rows, cols]` outputs is cut.
    pub(super) fn chunks(self, outputs: [usize; 2], depth: usize) -> Chunks {
        Chunks::new(self.blocks(outputs).iter().product(), depth)
    }

    /// How the depth of a product is cut, of which one sample has `[rows, cols]` outputs.
    pub(super) fn split(self, outputs: [usize; 2], depth: usize) -> Chunks {
        Chunks::of_tiles(self.blocks(outputs).iter().product(), depth)
    }

    /// Whether that is a cut.
    pub(super) fn is_split(self, outputs: [usize; 2], depth: usize) -> bool {
        self.split(outputs, depth).count() > 1
    }

    /// Whether it is worth it: one sample's chunks busy three quarters of an H200, and large tiles lose little beyond the
    /// edges.
    pub(super) fn is_worth_splitting(self, outputs: [usize; 2], depth: usize) -> bool {
        const ENOUGH: usize = 99;
        let blocks: usize = self.blocks(outputs).iter().product();
        let busy = blocks * self.split(outputs, depth).count() >= ENOUGH;
        busy && (matches!(self, Tile::Small) || Tile::is_large_enough(outputs))
    }

    /// A box of an image that the copy engine takes: channels, columns and rows of pixels, samples.
    pub(super) fn image_box(self) -> [u32; 4] {
        let [rows, cols] = match self {
            Tile::Halo => [2 * PATCH[0] + REACH, PATCH[1] + REACH],
            _ => PATCH,
        };
        [DEPTH, cols, rows, 1].map(|size| size as u32)
    }

    /// A launch for `[rows, cols]` outputs.
    pub(super) fn launch(self, module: &'static str, dtype: DType, outputs: [usize; 2]) -> Launch {
        let (part, threads, depth, stages) = match self {
            Tile::Large => ("128", 256, 32, 3),
            Tile::Small => ("64", 128, 32, 3),
            Tile::Warpgroups => ("128", 256, 64, 4),
            Tile::WideWarpgroups => ("256", 256, 64, 4),
            Tile::Patches => ("128", 384, DEPTH, 6),
            Tile::WidePatches => ("256", 384, DEPTH, 4),
            Tile::Halo => ("128", 384, DEPTH, 7),
        };
        let [rows, cols] = self.size();
        let bytes = |lines: usize| lines * depth * dtype.size();
        // Two barriers a stage; each of eight warps stores 16 rows of 40 floats at a time.
        let (barriers, stored) = (stages * 16, 8 * 16 * 40 * size_of::<f32>());
        let shared = match self {
            Tile::Halo => {
                let pixels = self.image_box().iter().skip(1).product::<u32>() as usize;
                let image = bytes(pixels).next_multiple_of(1024) + 16;
                (stages * bytes(cols) + barriers).next_multiple_of(1024) + 2 * image + stored
            }
            Tile::Patches | Tile::WidePatches => stages * bytes(rows + cols) + barriers + stored,
            _ => stages * bytes(rows + cols),
        };
        let [down, across] = self.blocks(outputs);
        let grid = match self {
            // Tile after tile of one list.
            Tile::Patches | Tile::WidePatches | Tile::Halo => [down * across, 1, 1],
            _ => [down, across, 1],
        };
        Launch::new(module, dtype, grid, threads)
            .part(part)
            .shared(shared)
    }
}
