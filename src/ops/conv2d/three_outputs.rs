//! The launches of `kernels/conv2d/*_three_outputs.cu`: the last layer of what makes images, both ways.

use super::{Direction, Geometry, Key, VjpNormedKey};
use crate::ops::norm_fold;
use crate::runtime::kernel::{Launch, Plan, Ptr, Scratch};

/// Channels of a step forward, of a warp backward.
const CHANNELS: usize = 32;
/// Rows and columns of a tile of pixels forward.
const SIDE: usize = 16;
/// So many tiles busy half an H200.
const ENOUGH: usize = 64;
/// Threads of a block backward at most, and channels.
const THREADS: usize = 256;
/// A block's pixels backward are a multiple.
const PIXELS: usize = 64;

/// Nine taps of three outputs at most, and whole runs of channels for which a block has room.
pub(super) fn fits(key: &Key) -> bool {
    let (most, alone) = match key.direction {
        Direction::Vjp => (THREADS, !key.bias),
        _ => (640, true),
    };
    let is_same = key.k == 3 && key.geometry == Geometry::same(3);
    let runs = key.inputs.is_multiple_of(CHANNELS) && key.inputs <= most;
    key.dtype.is_half() && is_same && runs && key.outputs <= 3 && alone
}

/// Tiles of a sample.
fn tiles(key: &Key) -> usize {
    key.y.iter().map(|size| size.div_ceil(SIDE)).product()
}

/// Whether the forward pass has tiles for a GPU.
pub(super) fn has_enough_tiles(key: &Key) -> bool {
    tiles(key) >= ENOUGH
}

/// `y, x, w` and what is added; of an image that is to be normalised `y, x, norm_scale, norm_shift, w` and that.
pub(super) fn forward(key: &Key) -> Plan {
    let part = match (key.normed.is_some(), key.wide) {
        (false, false) => "",
        (false, true) => "wide",
        (true, false) => "normed",
        (true, true) => "normed_wide",
    };
    let grid = [tiles(key), key.samples, 1];
    Launch::new("conv2d/fwd_11_three_outputs", key.dtype, grid, 224)
        .part(part)
        .ints([key.samples, key.x[0], key.x[1], key.inputs, key.outputs])
        .into()
}

/// Pixels of a block, so many that a sample is 256 blocks at most: by its own size, so that the batch does not change a
/// bit.
fn chunk(key: &Key) -> usize {
    let pixels = key.x[0] * key.x[1];
    PIXELS * pixels.div_ceil(256 * PIXELS)
}

/// Blocks of a sample.
fn chunks(key: &Key) -> usize {
    (key.x[0] * key.x[1]).div_ceil(chunk(key))
}

/// A block for each chunk; `groups` of the channels are a norm's, if there is one.
fn launch(module: &'static str, key: &Key, groups: usize) -> Launch {
    let across = key.inputs / CHANNELS;
    let warps = THREADS / 32 / across * across;
    let grid = [chunks(key), key.samples, 1];
    Launch::new(module, key.dtype, grid, 32 * warps as u32)
        .ints([key.samples, key.x[0], key.x[1], key.inputs, key.outputs])
        .ints([groups, chunk(key), chunks(key)])
}

/// `dx, dy, w`.
pub(super) fn vjp(key: &Key) -> Plan {
    let pointers = [0, 1, 2].map(Ptr::Arg);
    launch("conv2d/vjp_13_three_outputs", key, 0)
        .pointers(pointers)
        .into()
}

/// `dx, x, mean, rstd, norm_w, norm_b, dy, w`: the sums of the chunks, the means from them, the result.
pub(super) fn vjp_normed(key: &VjpNormedKey) -> Plan {
    let VjpNormedKey { conv, groups, .. } = key;
    let [dx, x, mean, rstd, norm_w, norm_b, dy, w] = [0, 1, 2, 3, 4, 5, 6, 7].map(Ptr::Arg);
    let mut scratch = Scratch::default();
    let part = scratch.floats(2 * conv.samples * groups * chunks(conv));
    let channels = [(); 4].map(|()| scratch.floats(conv.samples * conv.inputs));
    let [scale, shift, slope, offset] = channels;
    let sizes = [conv.samples, conv.x[0] * conv.x[1], conv.inputs, *groups];
    let folded = [
        scale, shift, slope, offset, part, mean, rstd, norm_w, norm_b,
    ];
    let launch = |part| launch("conv2d/vjp_14_normed_three_outputs", conv, *groups).part(part);
    let again = conv.samples * conv.x[0] * conv.x[1] * (conv.inputs + conv.outputs);
    Plan {
        launches: vec![
            launch("sums").pointers([part, dy, w, x, mean, rstd, norm_w, norm_b]),
            norm_fold::vjp(conv.dtype, sizes, [chunk(conv), chunks(conv)], folded),
            launch("apply")
                .pointers([dx, dy, w, x, scale, shift, slope, offset])
                .reading_again(again * conv.dtype.size()),
        ],
        scratch: scratch.bytes(),
    }
}
