// cp.async. A copy runs at issue, or only when the wait that requires it is reached, or either at random: `late` shows
// a missing or too weak wait, `early` shows a buffer that is overwritten while in use.
#include "state.h"

namespace emu {

static void run_copy(const SharedCopy& copy) {
  u8* to = shared_ptr(copy.to, copy.bytes, "cp.async");
  if (copy.source_bytes) {
    reads(copy.from, copy.source_bytes);
    copy_bytes(to, copy.from, copy.source_bytes);
  }
  fill_bytes(to + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
  writes(to, copy.bytes);
}

void cp_async(u32 to, const void* from, u32 bytes, u32 source_bytes) {
  const bool misaligned = to % bytes || (source_bytes && reinterpret_cast<uintptr_t>(from) % bytes);
  if (EMU_UNLIKELY(misaligned)) fail("cp.async: misaligned, %u bytes from %p to 0x%x", bytes, from, to);
  shared_ptr(to, bytes, "cp.async");
  const SharedCopy copy{to, bytes, source_bytes, from};
  if (EMU_LIKELY(runs_at_issue())) {
    run_copy(copy);
  } else {
    core->used_copies = true;
    core->copies[running()->id].copies.push(copy);
  }
}

void cp_commit() {
  if (core->schedule.async == Async::Early) return;
  core->used_copies = true;
  CopyQueue& queue = core->copies[running()->id];
  queue.group_ends.push(queue.copies.count);
}

void cp_wait(u32 keep_groups) {
  if (core->schedule.async == Async::Early) return;
  CopyQueue& queue = core->copies[running()->id];
  if (queue.group_ends.count <= keep_groups) return;
  const u32 groups = queue.group_ends.count - keep_groups, end = queue.group_ends[groups - 1];
  for (u32 i = 0; i < end; ++i) run_copy(queue.copies[i]);
  queue.copies.drop_front(end);
  queue.group_ends.drop_front(groups);
  for (u32& group_end : queue.group_ends) group_end -= end;
}

}  // namespace emu
