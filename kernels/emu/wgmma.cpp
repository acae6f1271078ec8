// wgmma: 64 x n x 16 by the four warps of a warpgroup, operands named by descriptors of shared memory with the 128-byte
// swizzle, A also in registers.
//
// Lanes only leave the addresses of their registers and go on. The operation runs when the 128th lane has issued it or
// when a wait requires it: whoever reads d without waiting finds the old values, whoever writes a without waiting
// changes the product.
#include "state.h"

namespace emu {

static WarpGroup& group_of(const Lane* lane) { return core->groups[lane->warp->id / 4]; }
static u32 index_of(const Lane* lane) { return lane->warp->id % 4 * 32 + lane->lane; }

// ---- operands -----------------------------------------------------------------------------------------------------

struct Descriptor {
  u32 start, leading, stride;  // bytes
};
static Descriptor decode(u64 bits) {
  return {static_cast<u32>(bits & 0x3fff) << 4, static_cast<u32>(bits >> 16 & 0x3fff) << 4,
          static_cast<u32>(bits >> 32 & 0x3fff) << 4};
}

// Element (mn, k) from the start. Along k: rows of 128 bytes, eight to an atom. Along mn (transposed): 64 elements to a
// row, a row for each k.
static u32 offset_of(const Descriptor& d, u32 mn, u32 k, bool transposed) {
  if (transposed) return mn / 64 * d.leading + mn % 64 * 2 + k % 8 * 128 + k / 8 * d.stride;
  return mn % 8 * 128 + mn / 8 * d.stride + k * 2;
}

// Eight elements that lie together, to every `step`-th float of `to`.
static void load_chunk(const Descriptor& d, u32 mn, u32 k, bool transposed, Half kind, float* to, u32 step) {
  const u32 address = swizzled(d.start + offset_of(d, mn, k, transposed), 128);
  u16 halves[8];
  copy_bytes(halves, async_read(address, 16, "wgmma"), 16);
  for (u32 i = 0; i < 8; ++i) {
    to[i * step] = kind == Half::Bf16 ? bf16_to_f32(halves[i]) : f16_to_f32(halves[i]);
  }
}

// To a row-major matrix: (mn, k) for A, (k, mn) for B.
static void load_operand(u64 bits, u32 size, bool transposed, Half kind, float* to, u32 mn_step, u32 k_step) {
  const Descriptor d = decode(bits);
  const u32 mn_width = transposed ? 8 : 1, k_width = transposed ? 1 : 8;
  for (u32 mn = 0; mn < size; mn += mn_width) {
    for (u32 k = 0; k < 16; k += k_width) {
      load_chunk(d, mn, k, transposed, kind, to + mn * mn_step + k * k_step, transposed ? mn_step : k_step);
    }
  }
}

// A from registers, laid out like that of mma: warp w of the group holds rows 16 w .. 16 w + 15.
static void load_registers(const Wgmma& op, float* to) {
  for (u32 lane = 0; lane < 128; ++lane) {
    for (u32 e = 0; e < 8; ++e) {
      const u32 row = lane / 32 * 16 + lane / 4 % 8 + e / 2 % 2 * 8, k = 2 * (lane % 4) + e / 4 * 8 + e % 2;
      const u16 half = static_cast<u16>(op.a[lane][e / 2] >> e % 2 * 16);
      to[row * 16 + k] = op.operands.kind == Half::Bf16 ? bf16_to_f32(half) : f16_to_f32(half);
    }
  }
}

// ---- execution ----------------------------------------------------------------------------------------------------

// Warp w of the group holds rows 16 w .. 16 w + 15, laid out like the accumulators of mma for every 8 columns.
static float* accumulator_rows(u32 lane, u32 n) {
  return core->space.c + (lane / 32 * 16 + lane / 4 % 8) * n + 2 * (lane % 4);
}

static void load_accumulators(const Wgmma& op, u32 n) {
  if (!op.operands.scale_d) return fill_bytes(core->space.c, 0, 64 * n * sizeof(float));
  for (u32 lane = 0; lane < 128; ++lane) {
    float* c = accumulator_rows(lane, n);
    for (u32 j = 0; j < n / 8; ++j) {
      __builtin_memcpy(c + 8 * j, op.d[lane] + 4 * j, 8);
      __builtin_memcpy(c + 8 * n + 8 * j, op.d[lane] + 4 * j + 2, 8);
    }
  }
}

static void store_accumulators(const Wgmma& op, u32 n) {
  for (u32 lane = 0; lane < 128; ++lane) {
    const float* c = accumulator_rows(lane, n);
    for (u32 j = 0; j < n / 8; ++j) {
      __builtin_memcpy(op.d[lane] + 4 * j, c + 8 * j, 8);
      __builtin_memcpy(op.d[lane] + 4 * j + 2, c + 8 * n + 8 * j, 8);
    }
  }
}

static void run_next(WarpGroup& group) {
  const Wgmma& op = group.ops[group.done++];
  const WgmmaOperands& x = op.operands;
  const u32 n = static_cast<u32>(x.n);
  enter_engine(Engine::Tensor, &group.issued_edge);
  if (!x.a_in_registers) load_operand(x.a, 64, x.a_transposed, x.kind, core->space.a, 16, 1);
  load_operand(x.b, n, x.b_transposed, x.kind, core->space.b, 1, n);
  leave_engine(&group.done_edge);
  if (x.a_in_registers) load_registers(op, core->space.a);
  load_accumulators(op, n);
  product16(core->space.c, core->space.a, core->space.b, 64, x.n);
  store_accumulators(op, n);
}

static void wake_waiting(const Lane* lane) {
  for (u32 w = lane->warp->id & ~3u; w < (lane->warp->id | 3u) + 1; ++w) {
    for (u32 i = 0; i < 32; ++i) {
      Lane& other = core->lanes[w * 32 + i];
      if (other.exited || other.wait_op != Op::WgmmaWait) continue;
      other.wait_op = Op::None;
      set_ready(other.warp, 1u << i);
    }
  }
}

// ---- instructions -------------------------------------------------------------------------------------------------

void wgmma_fence() {
  Lane* lane = running();
  core->used_wgmma = true;
  group_of(lane).fenced[index_of(lane)] = true;
}

static void check_descriptor(u64 bits, const char* file, int line) {
  if (bits >> 62 != 1) {
    fail("wgmma at %s:%d: descriptor of swizzle mode %d, not of 128 bytes", file, line, static_cast<int>(bits >> 62));
  }
  if (bits >> 49 & 7) fail("wgmma at %s:%d: a base offset in the descriptor is not emulated", file, line);
}

static bool same_operation(const WgmmaOperands& x, const WgmmaOperands& y) {
  return x.a == y.a && x.b == y.b && x.n == y.n && x.scale_d == y.scale_d && x.kind == y.kind &&
         x.a_transposed == y.a_transposed && x.b_transposed == y.b_transposed && x.a_in_registers == y.a_in_registers;
}

static void issue(float* d, const u32* a, const WgmmaOperands& mine, const char* file, int line) {
  Lane* lane = running();
  WarpGroup& group = group_of(lane);
  core->used_wgmma = true;
  const u32 group_end = ((lane->warp->id | 3u) + 1) * 32;
  if (group_end > core->threads) fail("wgmma at %s:%d: the warpgroup is not whole", file, line);
  if (!group.fenced[index_of(lane)]) fail("wgmma at %s:%d: no wgmma.fence since the last wait or commit", file, line);
  if (!mine.a_in_registers) check_descriptor(mine.a, file, line);
  check_descriptor(mine.b, file, line);
  const u32 index = lane->wgmmas_issued++;
  if (index == group.ops.count) {
    Wgmma& fresh = group.ops.push_unset();
    fresh.operands = mine;
    fresh.arrived = 0;
  }
  Wgmma& op = group.ops[index];
  if (!same_operation(op.operands, mine)) {
    fail("wgmma at %s:%d: threads of the warpgroup differ in its operands", file, line);
  }
  op.d[index_of(lane)] = d;
  op.a[index_of(lane)] = a;
  release(&group.issued_edge);
  if (++op.arrived < 128) return;
  wake_waiting(lane);
  if (!runs_at_issue()) return;
  while (group.done <= index) run_next(group);
}

void wgmma(float* d, int n, u64 a, u64 b, bool a_transposed, bool b_transposed, bool scale_d, Half kind,
           const char* file, int line) {
  issue(d, nullptr, {a, b, n, a_transposed, b_transposed, scale_d, false, kind}, file, line);
}

void wgmma_registers(float* d, int n, const u32* a, u64 b, bool b_transposed, bool scale_d, Half kind,
                     const char* file, int line) {
  issue(d, a, {0, b, n, false, b_transposed, scale_d, true, kind}, file, line);
}

void wgmma_commit() {
  Lane* lane = running();
  WarpGroup& group = group_of(lane);
  core->used_wgmma = true;
  group.fenced[index_of(lane)] = false;  // stricter than the manual: a group without a fence draws a note of ptxas
  if (lane->wgmma_groups++ == group.group_ends.count) group.group_ends.push(lane->wgmmas_issued);
}

void wgmma_wait(u32 keep_groups, const char* file, int line) {
  Lane* lane = running();
  WarpGroup& group = group_of(lane);
  group.fenced[index_of(lane)] = false;  // registers may now be touched
  if (lane->wgmma_groups <= keep_groups) return;
  const u32 needed = group.group_ends[lane->wgmma_groups - keep_groups - 1];
  while (group.done < needed) {
    if (group.ops[group.done].arrived == 128) {
      run_next(group);
    } else {
      wait_for(Op::WgmmaWait, file, line, 0);
    }
  }
  acquire(&group.done_edge);
}

}  // namespace emu
