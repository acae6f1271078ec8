//! What the `.cu` variants launch.

use std::f64::consts::LOG2_E;

use super::Key;
use crate::ops::variant::Key as _;
use crate::runtime::kernel::{Launch, Plan, Ptr};

/// One warp a query and head, with room for the scores.
pub(super) fn forward_plain(key: &Key) -> Plan {
    warps("attention/fwd_1_plain", key).into()
}

/// One warp a query and head, with room for its `ds`.
pub(super) fn vjp_plain(key: &Key) -> Plan {
    warps("attention/vjp_1_plain", key).into()
}

/// `dq` as in [`vjp_plain`], then one warp a key and head, with room for its `p` and `ds`.
pub(super) fn vjp_kv_plain(key: &Key) -> Plan {
    let [dq, dk, dv, dy, q, k, v, o, lse] = std::array::from_fn(Ptr::Arg);
    let grid = [key.tk, key.heads, key.samples];
    let keys = Launch::new("attention/vjp_kv_1_plain", key.dtype(), grid, 32)
        .shared(8 * key.tq)
        .pointers([dk, dv, dy, q, k, v, o, lse])
        .ints([key.heads, key.d, key.tq, key.tk, key.causal.into()])
        .floats([key.scale()]);
    Plan {
        launches: vec![
            warps("attention/vjp_1_plain", key).pointers([dq, dy, q, k, v, o, lse]),
            keys,
        ],
        scratch: 0,
    }
}

/// One warp a query and head, with a float of shared memory for each key.
fn warps(module: &'static str, key: &Key) -> Launch {
    let grid = [key.tq, key.heads, key.samples];
    Launch::new(module, key.dtype(), grid, 32)
        .shared(4 * key.tk)
        .ints([key.heads, key.d, key.tq, key.tk])
        .ints([key.shared.into(), key.causal.into()])
        .floats([key.scale()])
}

/// Rows of statistics of each head: the queries, up to whole blocks.
fn padded(key: &Key) -> usize {
    key.tq.next_multiple_of(128)
}

/// Bytes of the statistics, at the start of the scratch memory.
fn stats_bytes(key: &Key) -> usize {
    8 * padded(key) * key.heads * key.samples
}

/// The statistics, from `dy`, `o` and `lse`.
fn stats(key: &Key, [dy, o, lse]: [Ptr; 3]) -> Launch {
    let grid = [padded(key) / 4, key.heads, key.samples];
    Launch::new("attention/vjp_stats", key.dtype(), grid, 128)
        .pointers([Ptr::Scratch(0), dy, o, lse])
        .ints([key.heads, key.d, key.tq, padded(key)])
}

/// The padded head dims that flash attention is compiled for.
const FLASH_DIMS: [(usize, &str); 4] = [(48, "d48"), (64, "d64"), (80, "d80"), (160, "d160")];

/// Whole 16-byte loads of a head dim that is compiled for, on tensor cores.
pub(super) fn in_flash(key: &Key) -> bool {
    key.dtype().is_half() && key.d.is_multiple_of(8) && key.d <= 160
}

/// One kernel of flash attention: a block owns some rows, the rows of two other tensors pass by in tiles.
struct Flash {
    module: &'static str,
    /// Rows that a block owns and rows of a tile, for each of `FLASH_DIMS`.
    rows: [(usize, usize); 4],
    /// Tensors of which a block keeps the rows it owns.
    kept: usize,
    /// Bytes that pass beside a tile's row.
    beside: usize,
}

const FORWARD: Flash = Flash {
    module: "attention/fwd_2_flash",
    rows: [(128, 32), (128, 32), (64, 64), (64, 32)],
    kept: 1,
    beside: 0,
};

const VJP: Flash = Flash {
    module: "attention/vjp_2_flash",
    rows: [(128, 32), (128, 32), (128, 32), (64, 32)],
    kept: 2,
    beside: 0,
};

const VJP_KV: Flash = Flash {
    module: "attention/vjp_kv_2_flash",
    rows: [(128, 32), (128, 32), (64, 32), (64, 16)],
    kept: 2,
    beside: 8,
};

impl Flash {
    /// Blocks for `count` rows of each head and sample.
    fn launch(&self, key: &Key, count: usize) -> Launch {
        let fits = |(dim, _): &(usize, _)| *dim >= key.d;
        let i = FLASH_DIMS.iter().position(fits).unwrap_or(3);
        let ((dim, part), (own, tile)) = (FLASH_DIMS[i], self.rows[i]);
        // `PITCH` in flash.cuh; two tiles of two tensors.
        let pitch = 2 * dim + 16;
        let shared = (self.kept * own + 4 * tile) * pitch + 2 * tile * self.beside;
        let grid = [count.div_ceil(own), key.heads, key.samples];
        Launch::new(self.module, key.dtype(), grid, 128)
            .part(part)
            .shared(shared)
    }
}

/// Whole 16-byte loads of a head dim that is one swizzled row of shared memory.
pub(super) fn in_wgmma(key: &Key) -> bool {
    key.dtype().is_half() && key.d.is_multiple_of(8) && key.d <= 64
}

/// Little beyond a sample's edges in tiles of 128 queries and keys of 64 channels.
pub(super) fn pays_by_wgmma(key: &Key) -> bool {
    let is_mostly_filled = |size: usize, tile| 4 * size.next_multiple_of(tile) <= 5 * size;
    is_mostly_filled(key.d, 64) && is_mostly_filled(key.tq, 128) && is_mostly_filled(key.tk, 128)
}

/// The same by wgmma: a block owns 128 rows, of head dims to 64.
struct Wgmma {
    module: &'static str,
    /// Rows of a tile.
    tile: usize,
    /// Tensors of which a block keeps the rows it owns.
    kept: usize,
    /// Bytes that pass beside a tile.
    beside: usize,
}

const FORWARD_WGMMA: Wgmma = Wgmma {
    module: "attention/fwd_4_wgmma",
    tile: 128,
    kept: 1,
    beside: 0,
};

const VJP_WGMMA: Wgmma = Wgmma {
    module: "attention/vjp_4_wgmma",
    tile: 128,
    kept: 2,
    beside: 0,
};

const VJP_KV_WGMMA: Wgmma = Wgmma {
    module: "attention/vjp_kv_4_wgmma",
    tile: 64,
    kept: 2,
    beside: 1024,
};

impl Wgmma {
    /// Blocks for `count` rows of each head and sample.
    fn launch(&self, key: &Key, count: usize) -> Launch {
        // Rows, stages and mbarriers as in flash90.cuh.
        let (own, row, stages) = (128, 128, 4);
        let stage = 2 * self.tile * row + self.beside;
        let grid = [count.div_ceil(own), key.heads, key.samples];
        Launch::new(self.module, key.dtype(), grid, 384)
            .shared(self.kept * own * row + stages * (stage + 16))
    }
}

/// One launch: scores never leave the registers.
fn forward(key: &Key, launch: Launch) -> Plan {
    launch
        .ints([key.heads, key.d, key.tq, key.tk])
        .ints([key.shared.into(), key.causal.into()])
        .floats([key.scale::<f64>() * LOG2_E])
        .into()
}

pub(super) fn forward_flash(key: &Key) -> Plan {
    forward(key, FORWARD.launch(key, key.tq))
}

pub(super) fn forward_wgmma(key: &Key) -> Plan {
    forward(key, FORWARD_WGMMA.launch(key, key.tq))
}

/// `dq` from its pointer and those of the inputs of a backward pass.
fn vjp_queries(key: &Key, launch: Launch, dq: Ptr, [dy, q, k, v, _, _]: [Ptr; 6]) -> Launch {
    launch
        .pointers([dq, dy, q, k, v, Ptr::Scratch(0)])
        .ints([key.heads, key.d, key.tq, key.tk, padded(key)])
        .ints([key.shared.into(), key.causal.into()])
        .floats([key.scale(), key.scale::<f64>() * LOG2_E])
}

/// Statistics, then `dq`.
fn vjp(key: &Key, queries: Launch) -> Plan {
    let inputs: [Ptr; 6] = std::array::from_fn(|i| Ptr::Arg(1 + i));
    let [dy, .., o, lse] = inputs;
    Plan {
        launches: vec![
            stats(key, [dy, o, lse]),
            vjp_queries(key, queries, Ptr::Arg(0), inputs),
        ],
        scratch: stats_bytes(key),
    }
}

pub(super) fn vjp_flash(key: &Key) -> Plan {
    vjp(key, VJP.launch(key, key.tq))
}

pub(super) fn vjp_wgmma(key: &Key) -> Plan {
    vjp(key, VJP_WGMMA.launch(key, key.tq))
}

/// Statistics, then `dq`, then `dk` and `dv`, each by blocks that alone write their rows.
fn vjp_kv(key: &Key, queries: Launch, keys: Launch) -> Plan {
    let [dq, dk, dv] = std::array::from_fn(Ptr::Arg);
    let inputs: [Ptr; 6] = std::array::from_fn(|i| Ptr::Arg(3 + i));
    let [dy, q, k, v, o, lse] = inputs;
    let keys = keys
        .pointers([dk, dv, dy, q, k, v, Ptr::Scratch(0)])
        .ints([key.heads, key.d, key.tq, key.tk, padded(key)])
        .ints([key.causal.into()])
        .floats([key.scale(), key.scale::<f64>() * LOG2_E]);
    Plan {
        launches: vec![
            stats(key, [dy, o, lse]),
            vjp_queries(key, queries, dq, inputs),
            keys,
        ],
        scratch: stats_bytes(key),
    }
}

pub(super) fn vjp_kv_flash(key: &Key) -> Plan {
    vjp_kv(key, VJP.launch(key, key.tq), VJP_KV.launch(key, key.tk))
}

pub(super) fn vjp_kv_wgmma(key: &Key) -> Plan {
    let queries = VJP_WGMMA.launch(key, key.tq);
    vjp_kv(key, queries, VJP_KV_WGMMA.launch(key, key.tk))
}

/// Whole 16-byte loads, and products on tensor cores.
pub(super) fn in_wide(key: &Key) -> bool {
    key.dtype().is_half() && key.d.is_multiple_of(8)
}

/// Keys in a row of scores in scratch memory: whole 16-byte loads.
fn pitch(key: &Key) -> usize {
    key.tk.next_multiple_of(8)
}

/// The matrix of one head, as `product.cuh` takes it: rows, columns, and the distances between rows, heads,
/// samples.
type Matrix = [usize; 5];

/// The queries' side of an argument.
fn queries(key: &Key) -> Matrix {
    [key.tq, key.d, key.width(), key.d, key.tq * key.width()]
}

/// The keys' side.
fn keys(key: &Key) -> Matrix {
    [key.tk, key.d, key.width(), key.d, key.keys_at(1)]
}

/// Scores, or what was made of them, in scratch memory.
fn scores(key: &Key) -> Matrix {
    let (pitch, head) = (pitch(key), key.tq * pitch(key));
    [key.tq, pitch, pitch, head, key.heads * head]
}

/// Elements of the scores of all samples.
fn scores_len(key: &Key) -> usize {
    key.samples * key.heads * key.tq * pitch(key)
}

/// c = a b for each head and sample; `across` of the two factors lie across the sum.
fn product(module: &'static str, key: &Key, across: usize, [a, b, c]: [Matrix; 3]) -> Launch {
    let [rows, cols, ..] = c;
    let grid = [
        cols.div_ceil(128),
        rows.div_ceil(128),
        key.heads * key.samples,
    ];
    // Three stages of two tiles, see product.cuh.
    let (along, over) = (128 * 80, 32 * 272);
    Launch::new(module, key.dtype(), grid, 256)
        .shared(3 * ((2 - across) * along + across * over))
        .ints([key.heads])
        .ints(a.into_iter().chain(b).chain(c))
}

/// Scores (f32), softmax, weighted values: 6 bytes of scratch memory a score (100 MB for a sample of 4096
/// queries and keys).
pub(super) fn forward_wide(key: &Key) -> Plan {
    let [o, lse, q, k, v] = std::array::from_fn(Ptr::Arg);
    let module = "attention/fwd_3_wide";
    let rows = key.samples * key.heads * key.tq;
    let at = (4 * scores_len(key)).next_multiple_of(256);
    let (raw, weights) = (Ptr::Scratch(0), Ptr::Scratch(at));
    let softmax = Launch::new(module, key.dtype(), [rows.div_ceil(4), 1, 1], 128)
        .part("softmax")
        .pointers([weights, lse, raw])
        .ints([rows, key.tq, key.tk, pitch(key), key.causal.into()])
        .floats([key.scale()]);
    Plan {
        launches: vec![
            product(module, key, 0, [queries(key), keys(key), scores(key)])
                .part("scores")
                .pointers([raw, q, k]),
            softmax,
            product(module, key, 1, [scores(key), keys(key), queries(key)])
                .part("values")
                .pointers([o, weights, v]),
        ],
        scratch: at + 2 * scores_len(key),
    }
}

/// Where `p` and `ds` lie in scratch memory after the statistics, and where they end.
fn cotangents_at(key: &Key) -> [usize; 3] {
    let bytes = (2 * scores_len(key)).next_multiple_of(256);
    let start = stats_bytes(key);
    [start, start + bytes, start + 2 * bytes]
}

/// Statistics, `p`, `ds`, then `dq`: 4 bytes of scratch memory a score (67 MB for a sample of 4096 queries and
/// keys).
fn vjp_queries_wide(key: &Key, dq: Ptr, inputs: [Ptr; 6]) -> Plan {
    let module = "attention/vjp_3_wide";
    let [dy, q, k, v, o, lse] = inputs;
    let [weights, ds, scratch] = cotangents_at(key);
    let (stats_at, weights, ds) = (Ptr::Scratch(0), Ptr::Scratch(weights), Ptr::Scratch(ds));
    let launch = |across, matrices: [Matrix; 3]| {
        product(module, key, across, matrices)
            .ints([key.tk, padded(key), key.causal.into()])
            .floats([key.scale(), key.scale::<f64>() * LOG2_E])
    };
    let to_scores = [queries(key), keys(key), scores(key)];
    Plan {
        launches: vec![
            stats(key, [dy, o, lse]),
            launch(0, to_scores)
                .part("weights")
                .pointers([weights, q, k, stats_at]),
            launch(0, to_scores)
                .part("cotangents")
                .pointers([ds, dy, v, stats_at, weights]),
            launch(1, [scores(key), keys(key), queries(key)])
                .part("queries")
                .pointers([dq, ds, k]),
        ],
        scratch,
    }
}

/// As [`vjp_queries_wide`].
pub(super) fn vjp_wide(key: &Key) -> Plan {
    vjp_queries_wide(key, Ptr::Arg(0), std::array::from_fn(|i| Ptr::Arg(1 + i)))
}

/// As [`vjp_queries_wide`], then `dk` and `dv` from the same `p` and `ds`.
pub(super) fn vjp_kv_wide(key: &Key) -> Plan {
    let [dq, dk, dv] = std::array::from_fn(Ptr::Arg);
    let inputs: [Ptr; 6] = std::array::from_fn(|i| Ptr::Arg(3 + i));
    let [dy, q, ..] = inputs;
    let [weights, ds, _] = cotangents_at(key);
    let launch = |to, from, rows, scale| {
        let matrices = [scores(key), queries(key), keys(key)];
        product("attention/vjp_kv_3_wide", key, 2, matrices)
            .pointers([to, Ptr::Scratch(from), rows])
            .floats([scale])
    };
    let mut plan = vjp_queries_wide(key, dq, inputs);
    plan.launches.push(launch(dk, ds, q, key.scale()));
    plan.launches.push(launch(dv, weights, dy, 1.0));
    plan
}
