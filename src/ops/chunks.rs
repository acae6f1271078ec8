//! Sums over a long depth for few outputs, cut into chunks: launches of the kernels around
//! `kernels/common/chunks.cuh`.

use crate::dtype::DType;
use crate::runtime::kernel::{Launch, Plan, Ptr};

/// Blocks that busy a GPU.
const ENOUGH: usize = 512;
/// The shortest chunk: its sums take longer than storing and adding them.
const SHORTEST: usize = 256;

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
        let each = depth.div_ceil(count).next_multiple_of(32);
        Chunks {
            count: depth.div_ceil(each),
            each,
        }
    }

    /// A weight gradient of `len` elements, the op's arguments being `dw`, `x` and `dy`: `launch`, whose grid lacks the
    /// chunks and whose parameters lack the depth of one; then the sum of the chunks, if there are several.
    pub(super) fn plan(self, mut launch: Launch, len: usize) -> Plan {
        launch = launch.ints([self.each]);
        launch.grid[2] = self.count as u32;
        if self.count == 1 {
            return launch.into();
        }
        let parts = Ptr::Scratch(0);
        let add = Launch::each("sum/parts", DType::F32, len)
            .pointers([Ptr::Arg(0), parts])
            .ints([len, self.count]);
        let launch = launch.pointers([parts, Ptr::Arg(1), Ptr::Arg(2)]);
        Plan {
            launches: vec![launch, add],
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
            let Chunks { count, each } = Chunks::new(blocks, depth);
            assert!((count - 1) * each < depth && depth <= count * each);
        }
    }
}
