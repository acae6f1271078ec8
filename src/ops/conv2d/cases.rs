//! What checks and benches run.

use super::{Direction, Geometry, Key};
use crate::dtype::DType;

/// The cases of each direction.
pub(super) fn of(direction: Direction) -> Vec<Key> {
    let asymmetric = Geometry {
        stride: 2,
        before: 0,
        after: 1,
    };
    let halving = Geometry {
        stride: 2,
        before: 1,
        after: 1,
    };
    let even = Geometry {
        stride: 1,
        before: 0,
        after: 1,
    };
    // More than one tile of each kind either way, and more steps than stages; or more pixels than one chunk.
    let deep = match direction {
        Direction::Forward => (2, [9, 15], 72, 264, 3, Geometry::same(3)),
        Direction::Vjp => (2, [9, 15], 264, 72, 3, Geometry::same(3)),
        Direction::Wgrad => (5, [16, 17], 24, 128, 3, halving),
    };
    // Deep enough to be cut, into three chunks that begin amid taps and end amid steps.
    let cut = match direction {
        Direction::Forward => Some((2, [5, 7], 600, 72, 3, Geometry::same(3))),
        Direction::Vjp => Some((2, [5, 7], 72, 600, 3, Geometry::same(3))),
        Direction::Wgrad => None,
    };
    let all = [
        (1, [1, 1], 1, 1, 3, Geometry::same(3)),
        (2, [7, 5], 3, 31, 3, Geometry::same(3)),
        (1, [11, 20], 33, 40, 3, Geometry::same(3)),
        (3, [4, 4], 64, 32, 3, Geometry::same(3)),
        (2, [9, 6], 24, 12, 1, Geometry::same(1)),
        (2, [8, 12], 16, 16, 3, asymmetric),
        (1, [9, 7], 8, 20, 3, asymmetric),
        (2, [8, 12], 16, 24, 3, halving),
        (1, [9, 7], 5, 8, 3, halving),
        (1, [5, 7], 130, 6, 3, Geometry::same(3)),
        (3, [5, 9], 88, 136, 1, Geometry::same(1)),
        (2, [6, 7], 66, 3, 3, Geometry::same(3)),
        (2, [10, 9], 40, 72, 3, Geometry::same(3)),
        (2, [5, 5], 4, 40, 3, Geometry::same(3)),
        (1, [4, 5], 32, 4, 3, Geometry::same(3)),
        deep,
        (1, [3, 5], 64, 8, 3, Geometry::same(3)),
        (2, [5, 8], 7, 66, 3, halving),
        // A kernel of 4 and stride 2: its transpose is an upsampling and a convolution (ops::upsample_conv).
        (2, [6, 10], 24, 40, 4, halving),
        (1, [2, 2], 16, 8, 4, halving),
        (3, [13, 18], 72, 136, 4, halving),
        (2, [7, 9], 5, 33, 4, halving),
        (2, [13, 34], 264, 40, 4, halving),
        (2, [3, 2], 8, 8, 1, halving),
        // Phases that no tap reaches, of whole patches.
        (2, [16, 32], 8, 8, 1, halving),
    ];
    let key = |(i, (samples, x, inputs, outputs, k, geometry)): (
        usize,
        (_, [usize; 2], _, _, _, Geometry),
    )| {
        let y = x.map(|size| geometry.out(size, k).expect("the cases are large enough"));
        let (bias, shift, residual) = (i % 2 == 0, i % 3 == 0, i % 4 == 0);
        let wide = direction == Direction::Forward && i % 5 == 1;
        let dtype = DType::F32;
        Key {
            dtype,
            samples,
            x,
            y,
            inputs,
            outputs,
            k,
            geometry,
            bias,
            shift,
            residual,
            wide,
            direction,
            groups: 0,
            normed: None,
            narrow: None,
        }
    };
    // Whole patches of pixels, in either direction at stride 1, in the backward one at stride 2.
    let patches = [
        (3, [8, 16], 72, 136, 3, Geometry::same(3)),
        (2, [16, 32], 24, 40, 4, halving),
        (2, [8, 16], 16, 24, 3, Geometry::same(3)),
        (2, [16, 16], 136, 40, 1, Geometry::same(1)),
        (1, [16, 32], 16, 72, 3, asymmetric),
        // Pairs of patches: more steps of channels than stages, several tiles either way, fewer taps.
        (1, [32, 32], 136, 40, 3, Geometry::same(3)),
        (1, [32, 32], 16, 24, 3, asymmetric),
        (1, [16, 16], 72, 264, 3, Geometry::same(3)),
        (1, [32, 32], 72, 136, 4, halving),
        (3, [16, 32], 16, 72, 2, even),
        (3, [16, 32], 40, 24, 3, Geometry::same(3)),
    ];
    // Three outputs: several tiles and partial ones, warps side by side and below one another, rows beyond the last stage.
    let images = [
        (2, [18, 21], 64, 3, 3, Geometry::same(3)),
        (2, [3, 3], 256, 3, 3, Geometry::same(3)),
        (1, [67, 35], 32, 1, 3, Geometry::same(3)),
        (1, [5, 40], 96, 2, 3, Geometry::same(3)),
        (2, [20, 33], 96, 3, 3, Geometry::same(3)),
    ];
    let all = all.into_iter().chain(cut).chain(patches).chain(images);
    let all: Vec<_> = all.enumerate().map(key).collect();
    if direction == Direction::Wgrad {
        return all;
    }
    // Weights in 16 bits: few channels, odd ones, many, a kernel of one, phases, and pixels that no tap meets.
    let mixed = [1, 2, 4, 5, 15, 18, 20, 23].map(|i| &all[i]);
    let stored = |narrow| {
        mixed.map(|key| Key {
            narrow: Some(narrow),
            ..key.clone()
        })
    };
    let mixed = [DType::F16, DType::Bf16].map(stored);
    all.iter()
        .cloned()
        .chain(mixed.into_iter().flatten())
        .collect()
}
