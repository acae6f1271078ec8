//! The launches of `kernels/conv2d/`.

use super::Key;
use crate::runtime::kernel::{Launch, Plan};

/// The parameters that every kernel of the room takes first.
fn sizes(key: &Key) -> [usize; 10] {
    let Key { x, y, .. } = key;
    let (stride, before) = (key.geometry.stride, key.geometry.before);
    [
        key.samples,
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

/// The part of a kernel that stores `y` as this launch wants it.
fn part(key: &Key) -> &'static str {
    if key.wide && key.dtype.is_half() {
        "wide"
    } else {
        ""
    }
}

pub(super) fn forward_plain(key: &Key) -> Plan {
    let len = key.samples * key.y[0] * key.y[1] * key.outputs;
    Launch::each("conv2d/fwd_1_plain", key.dtype, len)
        .part(part(key))
        .ints(sizes(key))
        .into()
}

pub(super) fn vjp_plain(key: &Key) -> Plan {
    let len = key.samples * key.x[0] * key.x[1] * key.inputs;
    Launch::each("conv2d/vjp_1_plain", key.dtype, len)
        .ints(sizes(key))
        .into()
}
