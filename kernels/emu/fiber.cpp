// Fibers: stacks and the switch between them. A switch saves six registers, exchanges stack pointers and returns, in
// a few nanoseconds; swapcontext would make a system call each time. x86-64 only.
#include <sys/mman.h>

#include "state.h"

#if !defined(__x86_64__)
#error "the fiber switch is written for x86-64"
#endif

extern "C" void emu_swap(void** save_sp, void* load_sp);
extern "C" [[noreturn]] void emu_leap(void* load_sp);
asm(R"(
.text
.globl emu_swap
.hidden emu_swap
.type emu_swap,@function
emu_swap:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_swap,.-emu_swap
.globl emu_leap
.hidden emu_leap
.type emu_leap,@function
emu_leap:
  movq %rdi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_leap,.-emu_leap
)");

namespace emu {

#if defined(EMU_ASAN) || defined(EMU_TSAN) || !defined(__OPTIMIZE__)
static constexpr size_t STACK = 256 * 1024;
#else
static constexpr size_t STACK = 64 * 1024;
#endif

// An untouched stack whose first switch enters block_main.
static void reset(Fiber* fiber, u32 index) {
  // Staggered tops: frames at the same offset of every stack would fall into the same sets of the cache.
  u8* top = fiber->top - (index * 5 % 16 * 256 + index / 16 % 4 * 64);
  void** sp = reinterpret_cast<void**>(top);
  *--sp = nullptr;
  *--sp = reinterpret_cast<void*>(block_main);
  for (int saved = 0; saved < 6; ++saved) *--sp = nullptr;
  fiber->sp = sp;
  fiber->fake = nullptr;
}

static Fiber* new_fiber() {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) abort();
  mprotect(memory, PAGE, PROT_NONE);
  u8* low = static_cast<u8*>(memory) + PAGE;
  Fiber* fiber = new Fiber{nullptr, low, low + STACK, nullptr};
  reset(fiber, core->fibers.count);
  core->fibers.push(fiber);
  return fiber;
}

static EMU_INLINE void switch_fiber(Fiber* from, Fiber* to, [[maybe_unused]] void* identity) {
  core->stats.switches++;
#if defined(EMU_ASAN)
  __sanitizer_start_switch_fiber(&from->fake, to->low, static_cast<size_t>(to->top - to->low));
#endif
#if defined(EMU_TSAN)
  __tsan_switch_to_fiber(identity, __tsan_switch_to_fiber_no_sync);
#endif
  emu_swap(&from->sp, to->sp);
#if defined(EMU_ASAN)
  __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}

#if defined(EMU_TSAN)

// Each identity keeps its own stack: a reused one would look like a race.
Fiber* take_fiber(Lane* lane) {
  Fiber*& fiber = core->identity_fiber[core->identity_set][lane->id];
  if (!fiber) fiber = new_fiber();
  return fiber;
}
void give_fiber(Core*, Fiber*) {}

static void* identity_of(Lane* lane) { return core->identity[core->identity_set][lane->id]; }
static void* identity_of_main() { return core->main_identity; }

// All of them before the first block: creation orders the creator's past before the new identity and hides races.
void create_identities() {
  core->main_identity = __tsan_get_current_fiber();
  for (u32 set = 0; set < identity_sets(); ++set) {
    for (u32 i = 0; i < core->threads; ++i) {
      void*& identity = core->identity[set][i];
      if (!identity) identity = __tsan_create_fiber(0);
    }
  }
  for (void*& engine : core->engines) {
    if (!engine) engine = __tsan_create_fiber(0);
  }
}
void destroy_identities() {
  for (auto& set : core->identity) {
    for (void*& identity : set) {
      if (identity) __tsan_destroy_fiber(identity);
      identity = nullptr;
    }
  }
}

void enter_engine(Engine engine, const void* issued_edge) {
  core->interrupted = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(core->engines[static_cast<int>(engine)], __tsan_switch_to_fiber_no_sync);
  acquire(issued_edge);
}
void leave_engine(const void* done_edge) {
  release(done_edge);
  __tsan_switch_to_fiber(core->interrupted, __tsan_switch_to_fiber_no_sync);
}

#else

Fiber* take_fiber(Lane*) { return core->idle_fibers.count ? core->idle_fibers.pop() : new_fiber(); }
void give_fiber(Core* owner, Fiber* fiber) { owner->idle_fibers.push(fiber); }

static void* identity_of(Lane*) { return nullptr; }
static void* identity_of_main() { return nullptr; }
void create_identities() {}
void destroy_identities() {}
void enter_engine(Engine, const void*) {}
void leave_engine(const void*) {}

#endif

void switch_to_lane(Fiber* from, Lane* to) {
  if (!to->fiber) to->fiber = take_fiber(to);
  switch_fiber(from, to->fiber, identity_of(to));
}
void switch_to_main(Fiber* from) { switch_fiber(from, &core->cluster->main, identity_of_main()); }
void leap_to_main() { emu_leap(core->cluster->main.sp); }

// After a failure, whatever the fibers were doing is dropped: kernels own nothing that needs a destructor.
void abandon_fibers() {
  core->idle_fibers.clear();
  for (u32 i = core->fibers.count; i-- > 0;) {
    Fiber* fiber = core->fibers[i];
    unpoison(fiber->low, static_cast<size_t>(fiber->top - fiber->low));
    reset(fiber, i);
    core->idle_fibers.push(fiber);
  }
  destroy_identities();
}

}  // namespace emu
