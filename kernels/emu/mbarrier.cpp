// mbarriers: 64-bit words in shared memory, so that what overwrites one is noticed.
#include "state.h"

namespace emu {

struct BarrierWord {
  u64 pending : 20, expected : 20, bytes : 20, phase : 1, magic : 3;
};
static_assert(sizeof(BarrierWord) == 8, "an mbarrier is 8 bytes");
constexpr u64 NO_BYTES = 1 << 19, MAGIC = 5;  // the byte count may pass below its start: copies can precede expect_tx

static BarrierWord* word_at(u32 address, const char* what) {
  if (address % 8) fail("%s: mbarrier address 0x%x is not a multiple of 8", what, address);
  return reinterpret_cast<BarrierWord*>(shared_ptr(address, 8, what));
}

static BarrierWord* barrier_at(u32 address, const char* what) {
  BarrierWord* barrier = word_at(address, what);
  if (barrier->magic != MAGIC || barrier->pending > barrier->expected) {
    fail("%s: no initialised mbarrier at shared address 0x%x", what, address);
  }
  return barrier;
}

static bool waits_at(const Lane& lane, u32 address) {
  return !lane.exited && lane.wait_op == Op::Mbarrier && lane.wait_object == address;
}

static void complete_if_done(u32 address, BarrierWord* barrier) {
  if (barrier->pending || barrier->bytes != NO_BYTES) return;
  barrier->phase ^= 1;
  barrier->pending = barrier->expected;
  for (u32 i = 0; i < core->threads; ++i) {
    Lane& lane = core->lanes[i];
    if (!waits_at(lane, address)) continue;
    lane.wait_op = Op::None;
    set_ready(lane.warp, 1u << lane.lane);
  }
}

void mbar_init(u32 address, u32 count) {
  if (count == 0 || count >= 1u << 20) fail("mbarrier.init: a count of %u", count);
  *word_at(address, "mbarrier.init") = BarrierWord{count, count, NO_BYTES, 0, MAGIC};
}

void mbar_arrive(u32 address, u32 expected_bytes) {
  BarrierWord* barrier = barrier_at(address, "mbarrier.arrive");
  release(barrier);
  if (!barrier->pending) {
    fail("mbarrier at shared address 0x%x: more arrivals than its count %u in one phase", address,
         static_cast<u32>(barrier->expected));
  }
  barrier->bytes += expected_bytes;
  barrier->pending--;
  complete_if_done(address, barrier);
}

// Whether the phase of that parity has completed. Waits once, as the device may.
bool mbar_try_wait(u32 address, u32 parity, const char* file, int line) {
  BarrierWord* barrier = barrier_at(address, "mbarrier.try_wait");
  if (parity > 1) fail("mbarrier.try_wait at %s:%d: a parity of %u", file, line, parity);
  if (barrier->phase == parity) {
    wait_for(Op::Mbarrier, file, line, address);
    if (barrier->phase == parity) return false;
  }
  acquire(barrier);
  return true;
}

const void* mbar_edge(u32 address) { return barrier_at(address, "TMA load"); }

void mbar_complete_bytes(u32 address, u32 bytes) {
  BarrierWord* barrier = barrier_at(address, "TMA load");
  barrier->bytes -= bytes;
  complete_if_done(address, barrier);
}

}  // namespace emu
