//! `kernels/group_norm/*_2_chunks.cu`: a block takes a chunk of whole pixels.

use super::Key;
use crate::ops::norm_fold;
use crate::runtime::kernel::{Launch, Plan, Ptr, Scratch};

/// Whether a pixel is whole 16 bytes and a block has a thread for each.
pub(super) fn fits(key: &Key) -> bool {
    key.c.is_multiple_of(key.dtype.pack()) && key.c / key.dtype.pack() <= 640
}

/// How a sample is cut into chunks; by its own sizes, so that the batch does not change a bit.
struct Cut {
    /// Pixels side by side in a block.
    rows: usize,
    /// Pixels of a chunk.
    pixels: usize,
    /// Chunks of a sample.
    chunks: usize,
    threads: u32,
}

impl Cut {
    /// The parts whose moments or sums are given.
    fn given(key: &Key) -> Self {
        Cut {
            pixels: key.pixels / key.parts,
            chunks: key.parts,
            ..Cut::of(key)
        }
    }

    /// At least 256 threads where the channels are few; every thread takes four pixels, or as many fours as keep
    /// the sample within 256 chunks.
    fn of(key: &Key) -> Self {
        let packs = key.c / key.dtype.pack();
        let rows = (256 / packs).max(1);
        let step = 4 * rows;
        let pixels = step * key.pixels.div_ceil(256 * step);
        Cut {
            rows,
            pixels,
            chunks: key.pixels.div_ceil(pixels),
            threads: (rows * packs).next_multiple_of(32) as u32,
        }
    }
}

/// `y, mean, rstd, x, w, b`.
pub(super) fn forward(key: &Key) -> Plan {
    let cut = Cut::of(key);
    let (moments, part, scratch) = moments(key, &cut, Ptr::Arg(3));
    let mut plan = fold_and_apply(key, &cut, part, scratch);
    plan.launches.insert(0, moments);
    plan
}

/// The same of `y, mean, rstd, x, w, b, moments`.
pub(super) fn from_moments(key: &Key) -> Plan {
    fold_and_apply(key, &Cut::given(key), Ptr::Arg(6), Scratch::default())
}

/// `scale, shift, mean, rstd, x, w, b, moments`.
pub(super) fn statistics(key: &Key) -> Plan {
    let [scale, shift, mean, rstd, x, w, b, given] = [0, 1, 2, 3, 4, 5, 6, 7].map(Ptr::Arg);
    let fold = |cut: &Cut, part| fold(key, cut, [mean, rstd, scale, shift, part, w, b]);
    if key.parts > 0 {
        return fold(&Cut::given(key), given).into();
    }
    let cut = Cut::of(key);
    let (moments, part, scratch) = moments(key, &cut, x);
    Plan {
        launches: vec![moments, fold(&cut, part)],
        scratch: scratch.bytes(),
    }
}

const FORWARD: &str = "group_norm/fwd_2_chunks";

/// The moments of the chunks of `x`, and where they are.
fn moments(key: &Key, cut: &Cut, x: Ptr) -> (Launch, Ptr, Scratch) {
    let mut scratch = Scratch::default();
    let part = scratch.floats(2 * key.samples * key.groups * cut.chunks);
    let moments = launch(FORWARD, "moments", key, cut, &[part, x]).floats([key.eps]);
    (moments, part, scratch)
}

/// `mean, rstd, scale, shift` from the moments of the chunks of `cut`, `w` and `b`.
fn fold(key: &Key, cut: &Cut, pointers: [Ptr; 7]) -> Launch {
    launch(FORWARD, "fold", key, cut, &pointers).floats([key.eps])
}

/// The statistics from the moments `part` of the chunks of `cut`, then the result.
fn fold_and_apply(key: &Key, cut: &Cut, part: Ptr, mut scratch: Scratch) -> Plan {
    let [y, mean, rstd, x, w, b] = [0, 1, 2, 3, 4, 5].map(Ptr::Arg);
    let scale = scratch.floats(key.samples * key.c);
    let shift = scratch.floats(key.samples * key.c);
    let apply = &[y, x, scale, shift];
    let again = if key.parts > 0 { 0 } else { bytes(key) };
    Plan {
        launches: vec![
            fold(key, cut, [mean, rstd, scale, shift, part, w, b]),
            launch(FORWARD, "apply", key, &Cut::of(key), apply)
                .reading_again(again)
                .floats([key.eps]),
        ],
        scratch: scratch.bytes(),
    }
}

/// `dx, dy, x, mean, rstd, w, b, residual`.
pub(super) fn vjp(key: &Key) -> Plan {
    let [dy, x, mean, rstd, w, b] = [1, 2, 3, 4, 5, 6].map(Ptr::Arg);
    let cut = Cut::of(key);
    let mut scratch = Scratch::default();
    let part = scratch.floats(2 * key.samples * key.groups * cut.chunks);
    let sums = launch(VJP, "sums", key, &cut, &[part, dy, x, mean, rstd, w, b]);
    let mut plan = vjp_fold_and_apply(key, &cut, part, scratch);
    plan.launches.insert(0, sums);
    plan
}

/// The same of `dx, dy, x, mean, rstd, w, b, residual, sums`.
pub(super) fn vjp_from_sums(key: &Key) -> Plan {
    vjp_fold_and_apply(key, &Cut::given(key), Ptr::Arg(8), Scratch::default())
}

/// `scale, shift, slope, offset, mean, rstd, w, b, sums`.
pub(super) fn vjp_coefficients(key: &Key) -> Plan {
    let [scale, shift, slope, offset, mean, rstd, w, b, sums] =
        [0, 1, 2, 3, 4, 5, 6, 7, 8].map(Ptr::Arg);
    let fold = [scale, shift, slope, offset, sums, mean, rstd, w, b];
    launch(VJP, "fold", key, &Cut::given(key), &fold).into()
}

const VJP: &str = "group_norm/vjp_2_chunks";

/// The means from the sums `part` of the chunks of `cut`, then the result.
fn vjp_fold_and_apply(key: &Key, cut: &Cut, part: Ptr, mut scratch: Scratch) -> Plan {
    let [dx, dy, x, mean, rstd, w, b, residual] = [0, 1, 2, 3, 4, 5, 6, 7].map(Ptr::Arg);
    let [scale, shift, slope, offset] = [(); 4].map(|()| scratch.floats(key.samples * key.c));
    let fold = [scale, shift, slope, offset, part, mean, rstd, w, b];
    let apply = [dx, dy, x, scale, shift, slope, offset, residual];
    let again = if key.parts > 0 { 0 } else { 2 * bytes(key) };
    Plan {
        launches: vec![
            launch(VJP, "fold", key, cut, &fold),
            launch(VJP, "apply", key, &Cut::of(key), &apply).reading_again(again),
        ],
        scratch: scratch.bytes(),
    }
}

/// Bytes of a tensor.
fn bytes(key: &Key) -> usize {
    key.samples * key.pixels * key.c * key.dtype.size()
}

/// `fold` takes a block for each group; the others a block for each chunk, and the first of them shared memory for a
/// pair from every thread and channel.
fn launch(
    module: &'static str,
    part: &'static str,
    key: &Key,
    cut: &Cut,
    pointers: &[Ptr],
) -> Launch {
    let launch = match part {
        "fold" => {
            let grid = [key.groups, key.samples, 1];
            Launch::new(module, key.dtype, grid, norm_fold::threads(cut.chunks))
        }
        "apply" => Launch::new(module, key.dtype, [cut.chunks, key.samples, 1], cut.threads),
        _ => Launch::new(module, key.dtype, [cut.chunks, key.samples, 1], cut.threads)
            .shared(8 * cut.rows * key.c),
    };
    let sizes = [key.pixels, key.c, key.groups, usize::from(key.silu)];
    launch
        .part(part)
        .pointers(pointers)
        .ints(sizes)
        .ints([cut.rows, cut.pixels, cut.chunks])
}
