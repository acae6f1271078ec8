// Clusters: blocks that run together. Each has a core of its own, and one OS thread runs them in turns: a barrier that all
// of them meet at, and reads of one another's shared memory.
#include "state.h"

namespace emu {

// From here on, core and ctx are those of another block of the cluster.
void turn_to(Core* other) {
  core->context = ctx;
  core = other;
  ctx = other->context;
}

static u32 lowest(u32 bits) { return static_cast<u32>(__builtin_ctz(bits)); }

// Which of `blocks`, bits by rank, runs next when the running one is not to: by the order of the schedule.
static u32 pick_rank(u32 blocks) {
  switch (core->schedule.order) {
    case Order::Forward: {
      const u32 later = blocks & ~((2u << core->rank) - 1);
      return lowest(later ? later : blocks);
    }
    case Order::Reverse: return 31 - static_cast<u32>(__builtin_clz(blocks));
    case Order::Random: break;
  }
  for (u32 skip = random_below(static_cast<u32>(__builtin_popcount(blocks))); skip; --skip) blocks &= blocks - 1;
  return lowest(blocks);
}

// Turns to a block whose threads can run, or, when there is none, to one with copies that can arrive.
void turn_to_another() {
  const Cluster& cluster = *core->cluster;
  u32 ready = 0, loading = 0;
  for (u32 i = 0; i < cluster.size; ++i) {
    ready |= static_cast<u32>(cluster.blocks[i]->ready_warps != 0) << i;
    loading |= static_cast<u32>(cluster.blocks[i]->load_count != 0) << i;
  }
  if (!ready) ready = loading;
  if (ready) turn_to(cluster.blocks[pick_rank(ready)]);
}

u32 cluster_rank() { return core->rank; }

static u32 exited_threads() {
  u32 exited = 0;
  for (u32 i = 0; i < core->cluster->size; ++i) exited += core->threads - core->cluster->blocks[i]->alive;
  return exited;
}

static void complete(Cluster& cluster) {
  cluster.arrived = 0;
  cluster.generation++;
  for (u32 i = 0; i < cluster.size; ++i) {
    Core* const block = cluster.blocks[i];
    for (u32 w = 0; w < block->warp_count; ++w) {
      if (!block->cluster_waiting[w]) continue;
      block->warps[w].ready |= block->cluster_waiting[w];
      block->ready_warps |= 1u << w;
      block->cluster_waiting[w] = 0;
    }
  }
}

// Every thread of every block takes part, at the same line: stricter than the device, as __syncthreads is.
void cluster_sync(const char* file, int line) {
  Cluster& cluster = *core->cluster;
  const Lane* lane = running();
  if (const u32 exited = exited_threads()) {
    fail("cluster barrier at %s:%d after %u thread(s) of the cluster exited", file, line, exited);
  }
  if (cluster.arrived && cluster.line != line) {
    fail("divergent barrier: cluster barrier at %s:%d while others wait at line %d", file, line, cluster.line);
  }
  cluster.line = line;
  char* edge = &cluster.edge[cluster.generation & 1];
  release(edge);
  if (++cluster.arrived == cluster.size * core->threads) {
    complete(cluster);
    if (core->schedule.order == Order::Random) yield();
  } else {
    core->cluster_waiting[lane->warp->id] |= 1u << lane->lane;
    wait_for(Op::ClusterBarrier, file, line, 0);
  }
  acquire(edge);
}

// What block `rank` has where this one has `bytes` of dynamic shared memory at `at`.
const void* cluster_at(const void* at, u32 bytes, u32 rank, const char* file, int line) {
  const Cluster& cluster = *core->cluster;
  if (rank >= cluster.size) fail("block %u of a cluster of %u at %s:%d", rank, cluster.size, file, line);
  const u8* const p = static_cast<const u8*>(at);
  if (p < ctx.smem || p + bytes > ctx.smem + ctx.smem_size) {
    fail("%p at %s:%d, %u bytes, is outside the block's dynamic shared memory", at, file, line, bytes);
  }
  const size_t offset = static_cast<size_t>(p - ctx.smem);
  if (offset % bytes) fail("%p at %s:%d: misaligned, %u bytes", at, file, line, bytes);
  const Core* other = cluster.blocks[rank];
  if (!cluster.generation) fail("read of block %u at %s:%d, which may not have started", rank, file, line);
  if (!other->alive) fail("read of block %u of the cluster at %s:%d, which has ended", rank, file, line);
  return other->context.smem + offset;
}

}  // namespace emu
