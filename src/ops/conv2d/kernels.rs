//! The launches of `kernels/conv2d/`.

use super::{Direction, Key, SummedKey, moments};
use crate::ops::chunks::Chunks;
use crate::ops::tensor_cores::{PATCH, Tile};
use crate::ops::variant::Key as _;
use crate::runtime::kernel::{Launch, Plan, Ptr, TensorMap};

/// The parameters of a kernel that counts `samples`, or pixels of all samples instead.
fn sizes(key: &Key, samples: usize) -> [usize; 10] {
    let Key { x, y, .. } = key;
    let (stride, before) = (key.geometry.stride, key.geometry.before);
    [
        samples,
        x[0],
        x[1],
        y[0],
        y[1],
        key.inputs,
        key.outputs,
        key.k,
        stride,
        before,
    ]
}

/// The weights as a matrix.
fn weights(key: &Key) -> [usize; 2] {
    [key.taps() * key.inputs, key.outputs]
}

/// Whether `y` is in another type than `x`.
fn widens(key: &Key) -> bool {
    key.wide && key.dtype.is_half()
}

fn pixels([height, width]: [usize; 2]) -> usize {
    height * width
}

pub(super) fn forward_plain(key: &Key) -> Plan {
    let len = key.samples * pixels(key.y) * key.outputs;
    let part = if widens(key) { "wide" } else { "" };
    Launch::each("conv2d/fwd_1_plain", key.dtype, len)
        .part(part)
        .ints(sizes(key, key.samples))
        .into()
}

pub(super) fn vjp_plain(key: &Key) -> Plan {
    let len = key.samples * pixels(key.x) * key.inputs;
    Launch::each("conv2d/vjp_1_plain", key.dtype, len)
        .ints(sizes(key, key.samples))
        .into()
}

/// Every direction: 16-byte pieces of the channels on either side.
fn has_pieces(key: &Key) -> bool {
    let pieces = key.inputs.is_multiple_of(8) && key.outputs.is_multiple_of(8);
    key.dtype.is_half() && !key.wide && pieces
}

pub(super) fn fits_tiles(key: &Key) -> bool {
    has_pieces(key) && (key.direction != Direction::Vjp || key.geometry.stride == 1)
}

pub(super) fn is_large(key: &Key) -> bool {
    match key.direction {
        Direction::Wgrad => Tile::is_large_enough(weights(key)),
        _ => Tile::is_large(of_sample(key)),
    }
}

pub(super) fn is_wide(key: &Key) -> bool {
    Tile::is_wide(of_sample(key))
}

/// One sample's pixels and channels of the output.
pub(super) fn of_sample(key: &Key) -> [usize; 2] {
    match key.direction {
        Direction::Vjp => [pixels(key.x), key.inputs],
        _ => [pixels(key.y), key.outputs],
    }
}

/// Tiles of the whole depth.
pub(super) fn products(module: &'static str, key: &Key, tile: Tile) -> Plan {
    product(module, key, tile).into()
}

fn product(module: &'static str, key: &Key, tile: Tile) -> Launch {
    let [pixels, channels] = of_sample(key);
    let rows = key.samples * pixels;
    tile.launch(module, key.dtype, [rows, channels])
        .ints(sizes(key, rows))
}

/// Taps and channels that one output adds up.
fn depth(key: &Key) -> usize {
    match key.direction {
        Direction::Vjp => key.taps() * key.outputs,
        _ => key.taps() * key.inputs,
    }
}

pub(super) fn fits_split(key: &Key, tile: Tile) -> bool {
    fits_tiles(key) && tile.is_split(of_sample(key), depth(key))
}

pub(super) fn is_worth_splitting(key: &Key, tile: Tile) -> bool {
    tile.is_worth_splitting(of_sample(key), depth(key))
}

/// Tiles of chunks of the depth, and their sum.
pub(super) fn split(module: &'static str, key: &Key, tile: Tile) -> Plan {
    let [pixels, channels] = of_sample(key);
    let added = match key.direction {
        Direction::Vjp => [Ptr::Arg(3), Ptr::Null, Ptr::Null],
        _ => [3, 4, 5].map(Ptr::Arg),
    };
    tile.split([pixels, channels], depth(key)).product(
        product(module, key, tile),
        [key.samples * pixels, channels],
        pixels,
        added,
    )
}

/// No phase is without pixels.
pub(super) fn fits_phases(key: &Key) -> bool {
    has_pieces(key) && key.geometry.stride == 2 && key.x.iter().all(|&size| size >= 2)
}

pub(super) fn vjp_phases(key: &Key, tile: Tile) -> Plan {
    phases("conv2d/vjp_4_phases", key, tile)
}

pub(super) fn vjp_phases_wgmma(key: &Key, tile: Tile) -> Plan {
    phases("conv2d/vjp_6_phases_wgmma", key, tile)
}

fn phases(module: &'static str, key: &Key, tile: Tile) -> Plan {
    let stride = key.geometry.stride;
    let rows = key.samples * pixels(key.x.map(|size| size.div_ceil(stride)));
    let mut launch = tile
        .launch(module, key.dtype, [rows, key.inputs])
        .ints(sizes(key, key.samples));
    launch.grid[2] = (stride * stride) as u32;
    launch.into()
}

pub(super) fn fits_patches(key: &Key) -> bool {
    has_pieces(key) && has_patches(key)
}

/// Pairs of patches, one below the other, and a box around them that all taps are in.
pub(super) fn fits_halo(key: &Key) -> bool {
    let rows = match key.direction {
        Direction::Vjp => key.x[0],
        _ => key.y[0],
    };
    let pairs = rows.is_multiple_of(2 * PATCH[0] * key.geometry.stride);
    let taps = key.k.div_ceil(key.geometry.stride);
    fits_patches(key) && pairs && (2..=3).contains(&taps)
}

/// The same, whose taps reach one pixel around, of an image as large as the result.
pub(super) fn fits_same_halo(key: &Key) -> bool {
    fits_halo(key) && key.k == 3 && key.x == key.y
}

pub(super) fn is_worth_a_halo(key: &Key) -> bool {
    Tile::is_worth_a_halo(of_sample(key))
}

/// The pixels of the result, or of each phase of it, are whole patches.
pub(super) fn has_patches(key: &Key) -> bool {
    let stride = key.geometry.stride;
    let of_phase = match (key.direction, stride) {
        (Direction::Forward, 1) => key.y,
        (Direction::Vjp, 1 | 2) => key.x,
        _ => return false,
    };
    let whole = |axis: usize| of_phase[axis].is_multiple_of(stride * PATCH[axis]);
    whole(0) && whole(1)
}

/// Shared memory for the moments of a tile: two turns of a pair for each of 256 threads.
const MOMENTS_BYTES: usize = 2 * 256 * 2 * size_of::<f32>();

/// Shared memory for the barriers of an image that is made there: of two stages.
const MADE_BYTES: usize = 2 * 16;

/// Tiles of patches, that the copy engine brings; and the moments of groups of their channels, where the key has any.
pub(super) fn patches(module: &'static str, key: &Key, tile: Tile) -> Plan {
    let Key {
        samples,
        inputs,
        outputs,
        ..
    } = *key;
    let [pixels, channels] = of_sample(key);
    let written = 1 + usize::from(key.groups > 0); // arguments: the result, and its moments
    let image = |[height, width]: [usize; 2], channels| {
        let dims = [channels, width, height, samples];
        TensorMap::new(Ptr::Arg(written), dims, tile.image_box())
    };
    let w = written + 1 + of_norm(key);
    let weights = |lines| {
        let dims = [outputs, inputs, key.taps()];
        TensorMap::new(Ptr::Arg(w), dims, [64, lines, 1])
    };
    let mut launch = tile
        .launch(module, key.dtype, [samples * pixels, channels])
        .staying();
    if key.normed.is_some() {
        let shared = launch.shared as usize + MADE_BYTES;
        launch = launch.shared(shared);
    }
    let mut of_moments = [0, 0];
    if key.groups > 0 {
        let part = if tile.cols() == 256 {
            "256_moments"
        } else {
            "128_moments"
        };
        let shared = launch.shared as usize + MOMENTS_BYTES;
        launch = launch.part(part).shared(shared);
        of_moments = [key.groups, moments::size(key)];
    }
    let added = (written + 1..w).chain(w + 1..key.args().len());
    let launch = launch.pointers((0..written).chain(added).map(Ptr::Arg).collect::<Vec<_>>());
    let launch = match key.direction {
        Direction::Vjp => launch
            .map(image(key.y, outputs))
            .map(weights(tile.cols()))
            .ints(sizes(key, samples)),
        _ => launch
            .map(image(key.x, inputs))
            .map(weights(64))
            .ints([samples, key.y[0], key.y[1], inputs, outputs])
            .ints([key.k, key.geometry.before]),
    };
    launch.ints(of_moments).into()
}

/// How many arguments after the image tell what is to be made of it.
fn of_norm(key: &Key) -> usize {
    match (key.normed, key.direction) {
        (None, _) => 0,
        (Some(_), Direction::Vjp) => 5, // x, scale, shift, slope, offset
        (Some(_), _) => 2,              // scale, shift
    }
}

/// Shared memory for the barriers of tiles that are yet to be summed: two.
const SUMMED_BYTES: usize = 2 * 16;

/// Tiles of pairs of patches, and the sums of a norm's backward pass.
pub(super) fn summed(key: &SummedKey) -> Plan {
    let SummedKey {
        conv, groups, silu, ..
    } = key;
    let [pixels, channels] = of_sample(conv);
    let tile = Tile::Halo;
    let (module, part, made) = match conv.normed {
        None => ("conv2d/vjp_11_summed_halo", "128", 0),
        Some(_) => ("conv2d/vjp_12_through_halo", "128_summed", MADE_BYTES),
    };
    let launch = tile
        .launch(module, conv.dtype, [conv.samples * pixels, channels])
        .staying()
        .part(part);
    let shared = launch.shared as usize + made + SUMMED_BYTES;
    let dy = 7; // after the outputs and the norm before
    let w = dy + 1 + of_norm(conv);
    let pointers = (0..dy).chain(dy + 1..w).chain([w + 1]).map(Ptr::Arg);
    let image = [conv.outputs, conv.y[1], conv.y[0], conv.samples];
    let weights = [conv.outputs, conv.inputs, conv.taps()];
    launch
        .shared(shared)
        .pointers(pointers.collect::<Vec<_>>())
        .map(TensorMap::new(Ptr::Arg(dy), image, tile.image_box()))
        .map(TensorMap::new(Ptr::Arg(w), weights, [64, tile.cols(), 1]))
        .ints(sizes(conv, conv.samples))
        .ints([*groups, channels / groups, usize::from(*silu)])
        .into()
}

/// A warp's lanes go through the inputs by pairs.
pub(super) fn fits_few_outputs(key: &Key) -> bool {
    key.outputs <= 8 && key.inputs >= 32 && key.inputs.is_multiple_of(2)
}

pub(super) fn forward_few_outputs(key: &Key) -> Plan {
    let (sums, part) = match (key.outputs <= 4, widens(key)) {
        (true, false) => (4, "4"),
        (true, true) => (4, "4_wide"),
        (false, false) => (8, "8"),
        (false, true) => (8, "8_wide"),
    };
    let (warps, of_warp) = (4, 32 / sums);
    let blocks = pixels(key.y).div_ceil(warps * of_warp);
    let grid = [blocks, key.samples, 1];
    Launch::new("conv2d/fwd_3_few_outputs", key.dtype, grid, 128)
        .part(part)
        .ints(sizes(key, key.samples))
        .into()
}

pub(super) fn fits_eight_outputs(key: &Key) -> bool {
    key.outputs.is_multiple_of(8) && !widens(key)
}

pub(super) fn forward_eight_outputs(key: &Key) -> Plan {
    let blocks = (pixels(key.y) * key.outputs / 8).div_ceil(256);
    let grid = [blocks, key.samples, 1];
    Launch::new("conv2d/fwd_4_eight_outputs", key.dtype, grid, 256)
        .ints(sizes(key, key.samples))
        .into()
}

/// A warp's lanes go through the outputs by pairs.
pub(super) fn fits_few_inputs(key: &Key) -> bool {
    key.inputs <= 8 && key.outputs >= 32 && key.outputs.is_multiple_of(2) && !key.bias
}

pub(super) fn vjp_few_inputs(key: &Key) -> Plan {
    let grid = [pixels(key.x).div_ceil(4), key.samples, 1];
    Launch::new("conv2d/vjp_3_few_inputs", key.dtype, grid, 128)
        .pointers([0, 1, 2].map(Ptr::Arg))
        .ints(sizes(key, key.samples))
        .into()
}

pub(super) fn wgrad_plain(key: &Key) -> Plan {
    let len = key.taps() * key.inputs * key.outputs;
    Launch::each("conv2d/wgrad_1_plain", key.dtype, len)
        .ints(sizes(key, key.samples))
        .into()
}

pub(super) fn wgrad_tiles(key: &Key, tile: Tile) -> Plan {
    let (rows, outputs) = (key.samples * pixels(key.y), weights(key));
    let launch = tile
        .launch("conv2d/wgrad_2_tensor_cores", key.dtype, outputs)
        .ints(sizes(key, rows));
    let chunks = tile.chunks(outputs, rows);
    chunks.plan(launch, outputs[0] * outputs[1])
}

pub(super) fn wgrad_chunks(key: &Key) -> Plan {
    let (rows, outputs) = (key.samples * pixels(key.y), weights(key));
    let [down, across] = outputs.map(|size| size.div_ceil(32));
    let launch = Launch::new("conv2d/wgrad_3_chunks", key.dtype, [down, across, 1], 128)
        .ints(sizes(key, rows));
    let chunks = Chunks::new(down * across, rows);
    chunks.plan(launch, outputs[0] * outputs[1])
}
