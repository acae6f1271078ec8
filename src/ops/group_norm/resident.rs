//! `kernels/group_norm/*_3_resident.cu`: a block keeps one group of a sample in shared memory.

use super::Key;
use crate::runtime::kernel::{Launch, Plan};

/// Shared memory for the group of one tensor: a block may have 99 KiB everywhere, and the backward pass keeps two.
const ROOM: usize = 48 << 10;

/// Whether the group has pairs of channels, and fits.
pub(super) fn fits(key: &Key) -> bool {
    size(key).is_multiple_of(2) && bytes(key) <= ROOM
}

/// One launch of `y, mean, rstd, x, w, b`.
pub(super) fn forward(key: &Key) -> Plan {
    launch("group_norm/fwd_3_resident", key)
        .shared(bytes(key))
        .floats([key.eps])
        .into()
}

/// One launch of `dx, dy, x, mean, rstd, w, b, residual`.
pub(super) fn vjp(key: &Key) -> Plan {
    launch("group_norm/vjp_3_resident", key)
        .shared(2 * bytes(key))
        .into()
}

fn launch(module: &'static str, key: &Key) -> Launch {
    let part = match size(key) {
        size if size % 8 == 0 => "by8",
        size if size % 4 == 0 => "by4",
        _ => "by2",
    };
    let grid = [key.groups, key.samples, 1];
    Launch::new(module, key.dtype, grid, 512).part(part).ints([
        key.pixels,
        key.c,
        key.groups,
        usize::from(key.silu),
    ])
}

/// Channels of a group.
fn size(key: &Key) -> usize {
    key.c / key.groups
}

/// Bytes of a group in one tensor.
fn bytes(key: &Key) -> usize {
    key.pixels * size(key) * key.dtype.size()
}
