// Where threads meet: warp collectives (shuffle, vote, __syncwarp and, in tensor.cpp, the matrix instructions) and
// barriers of the block.
//
// Every lane leaves its operands in the warp's record and arrives; the last one carries out the operation for all,
// marks the others ready and goes on without a switch.
#include "state.h"

namespace emu {

static Meeting* find_meeting(Warp* warp, u32 mask) {
  Meeting* free_one = nullptr;
  for (Meeting& meeting : warp->meeting) {
    if (meeting.arrived && meeting.mask == mask) return &meeting;
    if (!meeting.arrived) free_one = &meeting;
  }
  if (!free_one) fail("more than %u warp collectives under way in one warp", MAX_MEETINGS);
  return free_one;
}

bool arrive(u32 mask, Op op, const char* file, int line) {
  Lane* lane = running();
  Warp* warp = lane->warp;
  const u32 bit = 1u << lane->lane;
  if (EMU_UNLIKELY(!(mask & bit))) fail("%s at %s:%d: own lane is not in mask 0x%x", op_name(op), file, line, mask);
  Meeting* meeting = &warp->meeting[0];
  if (EMU_UNLIKELY(warp->meetings && !(meeting->arrived && meeting->mask == mask))) meeting = find_meeting(warp, mask);
  if (!meeting->arrived) {
    meeting->mask = mask;
    meeting->op = op;
    meeting->line = line;
    warp->meetings++;
  } else if (EMU_UNLIKELY(meeting->op != op || meeting->line != line)) {
    fail("warp divergence: %s at %s:%d while other lanes are in %s at line %d", op_name(op), file, line,
         op_name(meeting->op), meeting->line);
  }
  meeting->arrived |= bit;
  if (meeting->arrived != mask) {
    wait_for(op, file, line, 0);
    return false;
  }
  meeting->arrived = 0;
  warp->meetings--;
  core->stats.collectives++;
  if (mask != bit) set_ready(warp, mask & ~bit);
  return true;
}

u64 shuffle(u32 mask, u64 value, u32 source_lane, const char* file, int line) {
  Lane* lane = running();
  Warp* warp = lane->warp;
  warp->value[lane->lane] = value;
  warp->source[lane->lane] = source_lane;
  if (arrive(mask, Op::Shuffle, file, line)) {
    for (u32 rest = mask; rest; rest &= rest - 1) {
      const u32 i = static_cast<u32>(__builtin_ctz(rest)), source = warp->source[i];
      if (EMU_UNLIKELY(!(mask >> source & 1))) {
        fail("shuffle at %s:%d: lane %u reads lane %u, which takes no part", file, line, i, source);
      }
      warp->result[i] = warp->value[source];
    }
  }
  return warp->result[lane->lane];
}

u32 ballot(u32 mask, bool predicate, const char* file, int line) {
  Lane* lane = running();
  Warp* warp = lane->warp;
  warp->value[lane->lane] = predicate;
  if (arrive(mask, Op::Vote, file, line)) {
    u32 bits = 0;
    for (u32 rest = mask; rest; rest &= rest - 1) {
      const u32 i = static_cast<u32>(__builtin_ctz(rest));
      bits |= static_cast<u32>(warp->value[i]) << i;
    }
    for (u32 rest = mask; rest; rest &= rest - 1) warp->result[__builtin_ctz(rest)] = bits;
  }
  return static_cast<u32>(warp->result[lane->lane]);
}

void syncwarp(u32 mask, const char* file, int line) {
  const Warp* warp = running()->warp;
  release(warp);
  arrive(mask, Op::Syncwarp, file, line);
  acquire(warp);
}

u32 active_lanes() { return running()->warp->alive; }
void thread_fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// ---- barriers of the block ----------------------------------------------------------------------------------------

static EMU_INLINE void check_barrier(const Barrier& barrier, u32 id, u32 count, const char* file, int line) {
  if (EMU_UNLIKELY(count == 0 && core->alive != core->threads)) {
    fail("__syncthreads at %s:%d after %u thread(s) exited", file, line, core->threads - core->alive);
  }
  if (EMU_UNLIKELY(count % 32)) fail("barrier %u at %s:%d: %u threads are not whole warps", id, file, line, count);
  if (!barrier.arrived) return;
  const u32 wanted = count ? count : core->threads;
  if (EMU_UNLIKELY(barrier.count != wanted)) {
    fail("barrier %u at %s:%d: for %u threads here, for %u at line %d", id, file, line, wanted, barrier.count,
         barrier.line);
  }
  // Stricter than the device, which takes any two __syncthreads for the same one.
  if (EMU_UNLIKELY(id == 0 && barrier.line != line)) {
    fail("divergent barrier: __syncthreads at %s:%d while others wait at line %d", file, line, barrier.line);
  }
}

static void complete(Barrier& barrier) {
  barrier.arrived = 0;
  barrier.votes_of[barrier.generation & 1] = barrier.votes;
  barrier.votes = 0;
  barrier.generation++;
  for (u32 i = 0; i < core->warp_count; ++i) {
    if (!barrier.waiting[i]) continue;
    set_ready(&core->warps[i], barrier.waiting[i]);
    barrier.waiting[i] = 0;
  }
}

// Returns how many threads of this generation voted.
static EMU_INLINE u32 meet(u32 id, u32 count, bool wait, bool vote, const char* file, int line) {
  if (EMU_UNLIKELY(id >= 16)) fail("barrier %u at %s:%d: there are 16", id, file, line);
  Lane* lane = running();
  Barrier& barrier = core->barriers[id];
  check_barrier(barrier, id, count, file, line);
  if (!barrier.arrived) {
    barrier.count = count ? count : core->threads;
    barrier.line = line;
  }
  const u32 generation = barrier.generation;
  char* edge = &barrier.edge[generation & 1];
  release(edge);
  barrier.votes += vote;
  if (++barrier.arrived == barrier.count) {
    complete(barrier);
    if (core->schedule.order == Order::Random && wait) yield();
  } else if (wait) {
    barrier.waiting[lane->warp->id] |= 1u << lane->lane;
    wait_for(Op::Barrier, file, line, id);
  }
  if (wait) acquire(edge);
  return barrier.votes_of[generation & 1];
}

void bar_sync(u32 id, u32 count, bool wait, const char* file, int line) { meet(id, count, wait, false, file, line); }
u32 syncthreads_count(bool predicate, const char* file, int line) { return meet(0, 0, true, predicate, file, line); }

}  // namespace emu
