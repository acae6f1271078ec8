// Which thread of the block runs next. A thread runs until it blocks and then switches straight to the next one: there
// is no scheduler fiber. Ready threads are bits, 32 to a warp, and ready warps are bits of one more word.
#include <algorithm>
#include <cstdarg>
#include <utility>

#include "state.h"

namespace emu {

__thread Context ctx;
__thread Core* core;

const char* op_name(Op op) {
  switch (op) {
    case Op::None: return "nothing";
    case Op::Shuffle: return "a shuffle";
    case Op::Vote: return "a vote";
    case Op::Syncwarp: return "__syncwarp";
    case Op::Ldmatrix: return "ldmatrix";
    case Op::LdmatrixTrans: return "ldmatrix.trans";
    case Op::Stmatrix: return "stmatrix";
    case Op::StmatrixTrans: return "stmatrix.trans";
    case Op::Mma: return "mma";
    case Op::MmaSmem: return "mma_smem";
    case Op::Barrier: return "a barrier";
    case Op::ClusterBarrier: return "a cluster barrier";
    case Op::Mbarrier: return "an mbarrier wait";
    case Op::WgmmaWait: return "a wgmma wait";
    case Op::Yield: return "a yield";
  }
  return "?";
}

// ---- failure ------------------------------------------------------------------------------------------------------

void fail(const char* format, ...) {
  char message[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  Lane* lane = running();
  acquire(&core->fail_edge);
  snprintf(core->error, sizeof core->error, "%s: block (%u,%u,%u) thread (%u,%u,%u): %s", core->kernel->name,
           ctx.block_index.x, ctx.block_index.y, ctx.block_index.z, lane->index.x, lane->index.y, lane->index.z,
           message);
  core->failed = true;
  release(&core->fail_edge);
  switch_to_main(lane->fiber);
  abort();  // an abandoned fiber is never resumed
}

static bool same_wait(const Lane& a, const Lane& b) {
  return a.wait_op == b.wait_op && a.wait_line == b.wait_line && a.wait_object == b.wait_object;
}

struct Report {
  char text[1500] = "";
  size_t used = 0;

  template <class... A> void add(const char* format, A... values) {
    used += static_cast<size_t>(snprintf(text + used, sizeof text - used, format, values...));
  }
  bool has_room() const { return used < sizeof text - 300; }
};

// Who of a block waits where, one line for each place.
static void report_waits(const Core* block, Report& report) {
  bool told[MAX_THREADS] = {};
  for (u32 i = 0; i < block->threads && report.has_room(); ++i) {
    const Lane& lane = block->lanes[i];
    if (lane.exited || told[i]) continue;
    u32 count = 0;
    for (u32 j = i; j < block->threads; ++j) {
      if (block->lanes[j].exited || !same_wait(lane, block->lanes[j])) continue;
      told[j] = true;
      count++;
    }
    report.add("\n  %u thread(s) from %u", count, i);
    if (block->cluster->size > 1) report.add(" of block %u of the cluster", block->rank);
    report.add(" wait in %s at %s:%d", op_name(lane.wait_op), lane.wait_file ? lane.wait_file : "?", lane.wait_line);
    if (lane.wait_op == Op::Mbarrier) report.add(" (at shared address 0x%x)", lane.wait_object);
  }
}

// Nothing can run.
[[noreturn]] static void deadlock() {
  Report report;
  u32 alive = 0;
  for (u32 i = 0; i < core->cluster->size; ++i) {
    alive += core->cluster->blocks[i]->alive;
    report_waits(core->cluster->blocks[i], report);
  }
  fail("deadlock, %u of %u threads alive:%s", alive, core->cluster->size * core->threads, report.text);
}

// ---- picking ------------------------------------------------------------------------------------------------------

static EMU_INLINE u32 lowest(u32 bits) { return static_cast<u32>(__builtin_ctz(bits)); }
static u32 highest(u32 bits) { return 31 - static_cast<u32>(__builtin_clz(bits)); }
static u32 random_bit(u32 bits) {
  for (u32 skip = random_below(static_cast<u32>(__builtin_popcount(bits))); skip; --skip) bits &= bits - 1;
  return lowest(bits);
}
static u32 bits_above(u32 bits, u32 index) { return bits & ~((2u << index) - 1); }

// Warps have random priorities and two of them are exchanged now and then. A uniform choice keeps all warps in step
// and misses the races that need one warp far ahead of the others; a quarter of the blocks still choose so.
static u32 random_warp(bool fair) {
  if (one_in(64)) std::swap(core->priority[random_below(MAX_WARPS)], core->priority[random_below(MAX_WARPS)]);
  if (core->uniform || fair) return random_bit(core->ready_warps);
  u32 best = lowest(core->ready_warps);
  for (u32 rest = core->ready_warps; rest; rest &= rest - 1) {
    if (core->priority[lowest(rest)] < core->priority[best]) best = lowest(rest);
  }
  return best;
}

// Stays in the running warp while it can; a fair pick goes round.
static EMU_INLINE Lane* pick_forward(bool fair) {
  const Lane* lane = running();
  Warp* warp = lane->warp;
  const bool others = (core->ready_warps & (core->ready_warps - 1)) != 0;
  if (!warp->ready || (fair && others)) {
    const u32 later = bits_above(core->ready_warps, warp->id);
    warp = &core->warps[lowest(later ? later : core->ready_warps)];
  }
  const u32 after = fair ? bits_above(warp->ready, lane->lane) : 0;
  return &warp->lanes[lowest(after ? after : warp->ready)];
}

static EMU_INLINE Lane* pick_ready(bool fair) {
  if (EMU_LIKELY(core->schedule.order == Order::Forward)) return pick_forward(fair);
  if (core->schedule.order == Order::Reverse && !fair) {
    Warp& warp = core->warps[highest(core->ready_warps)];
    return &warp.lanes[highest(warp.ready)];
  }
  Warp& warp = core->warps[random_warp(fair)];
  return &warp.lanes[random_bit(warp.ready)];
}

// The next thread to run, no longer marked ready; of a cluster, that of any of its blocks. Copies of the copy engine may
// finish here; when no thread is ready, one must.
static EMU_INLINE Lane* pick(bool fair = false) {
  const bool random = core->schedule.async == Async::Random, together = core->cluster->size > 1;
  if (EMU_UNLIKELY(together && core->schedule.order == Order::Random) && one_in(8)) turn_to_another();
  if (EMU_UNLIKELY(random && core->load_count) && one_in(4)) finish_one_load(true);
  while (EMU_UNLIKELY(!core->ready_warps)) {
    if (together) turn_to_another();
    if (core->ready_warps) break;
    if (!core->load_count) deadlock();
    finish_one_load(random);
  }
  Lane* lane = pick_ready(fair);
  Warp* warp = lane->warp;
  warp->ready &= ~(1u << lane->lane);
  if (!warp->ready) core->ready_warps &= ~(1u << warp->id);
  return lane;
}

static EMU_INLINE void run_another(bool fair) {
  Lane* from = running();
  Lane* to = pick(fair);
  if (to == from) return;
  ctx.thread = to;
  switch_to_lane(from->fiber, to);
}

// Blocks the running thread until set_ready names it.
void wait_for(Op op, const char* file, int line, u32 object) {
  Lane* lane = running();
  lane->wait_op = op;
  lane->wait_file = file;
  lane->wait_line = line;
  lane->wait_object = object;
  core->idle_yields = 0;
  run_another(false);
}

void yield() {
  Lane* lane = running();
  lane->wait_op = Op::Yield;
  lane->wait_file = nullptr;
  if (++core->idle_yields > 4'000'000) fail("every running thread only yields: a wait that nothing will end");
  set_ready(lane->warp, 1u << lane->lane);
  run_another(true);
}

// ---- the life of a block ------------------------------------------------------------------------------------------

static void check_exit(const Lane* lane) {
  for (const Meeting& meeting : lane->warp->meeting) {
    if (EMU_UNLIKELY(meeting.arrived && (meeting.mask >> lane->lane & 1))) {
      fail("thread exited while lanes wait for it in %s at line %d", op_name(meeting.op), meeting.line);
    }
  }
  if (EMU_UNLIKELY(core->barriers[0].arrived)) {
    fail("thread exited while others wait in __syncthreads at line %d", core->barriers[0].line);
  }
  if (EMU_UNLIKELY(core->cluster->arrived)) {
    fail("thread exited while others wait in a cluster barrier at line %d", core->cluster->line);
  }
}

static bool is_last_of_cluster() {
  for (u32 i = 0; i < core->cluster->size; ++i) {
    if (core->cluster->blocks[i]->alive) return false;
  }
  return true;
}

// What every fiber runs: the kernel for one thread, then, where possible, for the next one on the same stack. Kernels
// without barriers so cost a call for each thread.
void block_main() {
#if defined(EMU_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  for (;;) {
    acquire(&core->start_edge);
    core->kernel->call(core->args);
    release(&core->end_edge);
    Lane* lane = running();
    Fiber* fiber = lane->fiber;
    check_exit(lane);
    lane->exited = true;
    lane->warp->alive &= ~(1u << lane->lane);
    core->idle_yields = 0;
    Core* const block = core;
    if (--block->alive == 0 && is_last_of_cluster()) {
      give_fiber(block, fiber);
      switch_to_main(fiber);
      continue;
    }
    Lane* next = pick();
    ctx.thread = next;
#if !defined(EMU_TSAN)
    if (!next->fiber && core == block) {
      next->fiber = fiber;
      continue;
    }
#endif
    give_fiber(block, fiber);
    switch_to_lane(fiber, next);
  }
}

static void clear_warp(Warp& warp) {
  const u32 first = warp.id * 32;
  warp.alive = warp.ready = first + 32 <= core->threads ? FULL_MASK : (1u << core->threads % 32) - 1;
  warp.meetings = warp.fenced = 0;
  for (Meeting& meeting : warp.meeting) meeting.arrived = 0;
}

static void clear_lane(Lane& lane) {
  lane.fiber = nullptr;
  lane.exited = false;
  lane.wait_op = Op::None;
  lane.wait_object = 0;
  lane.wgmmas_issued = lane.wgmma_groups = 0;
}

static void clear_engines() {
  for (u32 i = 0; core->used_copies && i < core->threads; ++i) {
    core->copies[i].copies.clear();
    core->copies[i].group_ends.clear();
  }
  for (u32 i = 0; core->used_stores && i < core->threads; ++i) {
    core->stores[i].stores.clear();
    core->stores[i].group_ends.clear();
  }
  for (u32 i = 0; core->used_wgmma && i < 8; ++i) {
    WarpGroup& group = core->groups[i];
    group.ops.clear();
    group.group_ends.clear();
    group.done = 0;
    fill_bytes(group.fenced, 0, sizeof group.fenced);
  }
  core->used_copies = core->used_stores = core->used_wgmma = false;
  core->load_count = 0;
}

static void seed_block(u64 block) {
  core->random = (core->schedule.seed + 1) * 0x9e3779b97f4a7c15ull ^ (block + 1) * 0xd1342543de82ef95ull;
  random_below(2);
  random_below(2);
  if (core->schedule.order != Order::Random) return;
  for (u32 i = 0; i < MAX_WARPS; ++i) {
    const u32 j = random_below(i + 1);
    core->priority[i] = core->priority[j];
    core->priority[j] = static_cast<u8>(i);
  }
  core->uniform = one_in(4);
}

static void begin_block(u64 block) {
  const uint3 grid = ctx.grid_dim;
  ctx.block_index = {static_cast<u32>(block % grid.x), static_cast<u32>(block / grid.x % grid.y),
                     static_cast<u32>(block / grid.x / grid.y)};
#if defined(EMU_TSAN)
  core->identity_set = static_cast<u32>(block / core->cluster->size % identity_sets());
#endif
  core->alive = core->threads;
  core->ready_warps = core->warp_count == MAX_WARPS ? FULL_MASK : (1u << core->warp_count) - 1;
  core->idle_yields = 0;
  seed_block(block);
  for (u32 i = 0; i < core->warp_count; ++i) clear_warp(core->warps[i]);
  for (u32 i = 0; i < core->threads; ++i) clear_lane(core->lanes[i]);
  for (Barrier& barrier : core->barriers) {
    barrier.arrived = barrier.votes = 0;
    fill_bytes(barrier.waiting, 0, sizeof barrier.waiting);
  }
  fill_bytes(core->cluster_waiting, 0, sizeof core->cluster_waiting);
  clear_engines();
  clear_shared_memory();
  release(&core->start_edge);
  ctx.thread = &core->lanes[0];
  core->stats.blocks++;
}

// Runs the blocks of a cluster, `first` and those after it, to their end or to a failure, whose core is then the running
// one.
void run_cluster(u64 first) {
  Cluster& cluster = *core->cluster;
  cluster.arrived = cluster.generation = 0;
  std::rotate(cluster.blocks, cluster.blocks + 1, cluster.blocks + cluster.size);
  for (u32 i = 0; i < cluster.size; ++i) {
    turn_to(cluster.blocks[i]);
    core->rank = i;
    begin_block(first + i);
  }
  turn_to(cluster.blocks[0]);
  if (core->schedule.order != Order::Forward) turn_to_another();
  Lane* lane = pick();
  ctx.thread = lane;
  switch_to_lane(&cluster.main, lane);
}

}  // namespace emu
