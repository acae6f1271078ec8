//! Launches of linear maps' kernels.

use super::Key;
use crate::ops::tensor_cores::Tile;
use crate::runtime::kernel::{Launch, Plan, Ptr, TensorMap};

/// Maps that a launch takes at most.
const MOST: usize = 3;

/// One thread an output.
pub(super) fn plain(module: &'static str, key: &Key) -> Plan {
    let [rows, width] = of_sample(key);
    let launch = Launch::each(module, key.dtype, key.samples * rows * width);
    parts(key, sized(launch, key))
}

/// 16-byte pieces of the rows on either side.
pub(super) fn fits_tiles(key: &Key) -> bool {
    key.dtype.is_half() && key.k.is_multiple_of(8) && key.m.is_multiple_of(8)
}

/// Boxes are of one tensor of weights.
pub(super) fn fits_boxes(key: &Key) -> bool {
    fits_tiles(key) && key.parts == 1
}

/// All parts' outputs together are worth large tiles.
pub(super) fn is_large(key: &Key) -> bool {
    let products = if key.backward { 1 } else { key.parts };
    Tile::are_large(products, of_sample(key))
}

/// One part's outputs alone are worth wide tiles: those of three are more waves of large tiles, whose last one costs less.
pub(super) fn is_wide(key: &Key) -> bool {
    Tile::is_wide(of_sample(key))
}

/// One sample's rows and columns of an output.
fn of_sample(key: &Key) -> [usize; 2] {
    [key.rows, if key.backward { key.k } else { key.m }]
}

/// Tiles of the whole depth.
pub(super) fn products(module: &'static str, key: &Key, tile: Tile) -> Plan {
    parts(key, product(module, key, tile))
}

/// The same with the arguments in their order.
pub(super) fn gated(module: &'static str, key: &Key, tile: Tile) -> Plan {
    product(module, key, tile).into()
}

/// One thread a place of `dy w`.
pub(super) fn plain_gated(module: &'static str, key: &Key) -> Plan {
    let [rows, width] = of_sample(key);
    let launch = Launch::each(module, key.dtype, key.samples * rows * width);
    sized(launch, key).into()
}

fn product(module: &'static str, key: &Key, tile: Tile) -> Launch {
    let [rows, width] = of_sample(key);
    let outputs = [key.samples * rows, width];
    sized(tile.launch(module, key.dtype, outputs), key)
}

fn sized(launch: Launch, key: &Key) -> Launch {
    launch.ints([key.samples * key.rows, key.k, key.m])
}

/// A launch of all parts, whose arguments and layers it lacks: forward a layer each, backward all in one sum.
fn parts(key: &Key, launch: Launch) -> Plan {
    let of_parts = |first: usize| {
        let part = move |part| (part < key.parts).then_some(Ptr::Arg(first + part));
        (0..MOST).map(move |number| part(number).unwrap_or(Ptr::Null))
    };
    let weights = of_parts(key.weights_at());
    if key.backward {
        let dx = std::iter::once(Ptr::Arg(0));
        let pointers: Vec<_> = dx.chain(of_parts(1)).chain(weights).collect();
        return launch.pointers(pointers).ints([key.parts]).into();
    }
    let x = std::iter::once(Ptr::Arg(key.parts));
    let residual = std::iter::once(Ptr::Arg(key.residual_at()));
    let maps = of_parts(0).chain(x).chain(weights);
    let pointers = maps.chain(of_parts(key.bias_at())).chain(residual);
    let mut launch = launch.pointers(pointers.collect::<Vec<_>>());
    launch.grid[2] = key.parts as u32;
    launch.into()
}

/// Tiles of the whole depth, whose operands the copy engine brings: 128 rows at a time, and as many columns as a tile has.
pub(super) fn boxes(module: &'static str, key: &Key, tile: Tile) -> Plan {
    let dims = [depth(key), key.samples * key.rows, 1, 1];
    let operand = TensorMap::new(Ptr::Arg(1), dims, [64, 128, 1, 1]);
    let lines = if key.backward { 64 } else { tile.cols() };
    let weights = TensorMap::new(Ptr::Arg(2), [key.k, key.m, 1], [64, lines, 1]);
    let pointers: &[usize] = match (key.backward, key.geglu) {
        (false, _) => &[0, 3, 4],
        (true, false) => &[0],
        (true, true) => &[0, 3],
    };
    let pointers: Vec<_> = pointers.iter().copied().map(Ptr::Arg).collect();
    product(module, key, tile)
        .staying()
        .pointers(pointers)
        .map(operand)
        .map(weights)
        .into()
}

/// What one output adds up of a part.
fn depth(key: &Key) -> usize {
    if key.backward { key.m } else { key.k }
}

/// One part only.
pub(super) fn fits_split(key: &Key, tile: Tile) -> bool {
    fits_boxes(key) && tile.is_split(of_sample(key), depth(key))
}

pub(super) fn is_worth_splitting(key: &Key, tile: Tile) -> bool {
    tile.is_worth_splitting(of_sample(key), depth(key))
}

/// Tiles of chunks of the depth, and their sum.
pub(super) fn split(module: &'static str, key: &Key, tile: Tile) -> Plan {
    let [rows, width] = of_sample(key);
    let added = if key.backward {
        [Ptr::Null; 3]
    } else {
        [Ptr::Arg(3), Ptr::Null, Ptr::Arg(4)]
    };
    tile.split([rows, width], depth(key)).product(
        product(module, key, tile),
        [key.samples * rows, width],
        rows,
        added,
    )
}
