// Invalid accesses inside a kernel become an error of the launch: the signal handler, on a stack of its own, leaves the
// fiber for good and continues where the block was started. Faults elsewhere go to whoever handled them before.
//
// Not in sanitizer builds: their runtimes report the access better.
#include <csignal>
#include <mutex>

#include "state.h"

namespace emu {

constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE};
constexpr int SIGNAL_COUNT = sizeof SIGNALS / sizeof SIGNALS[0];
static struct sigaction previous[SIGNAL_COUNT];

static void pass_on(int signal, siginfo_t* info, void* context) {
  for (int i = 0; i < SIGNAL_COUNT; ++i) {
    if (SIGNALS[i] != signal) continue;
    struct sigaction& old = previous[i];
    if (old.sa_flags & SA_SIGINFO) {
      old.sa_sigaction(signal, info, context);
    } else if (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN) {
      sigaction(signal, &old, nullptr);  // returning faults again, now without us
    } else {
      old.sa_handler(signal);
    }
  }
}

static void on_fault(int signal, siginfo_t* info, void* context) {
  const bool sent_by_a_process = info->si_code <= 0;
  if (!core || !ctx.thread || sent_by_a_process) return pass_on(signal, info, context);
  core->fault_signal = signal;
  core->fault_address = info->si_addr;
  core->failed = true;
  leap_to_main();
}

// Once for the process, and before every launch, since the library around us may have set its own since.
void catch_faults() {
#if !defined(EMU_ASAN) && !defined(EMU_TSAN)
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;  // NODEFER: the handler may leave without returning
    for (int i = 0; i < SIGNAL_COUNT; ++i) sigaction(SIGNALS[i], &action, &previous[i]);
  });
#else
  (void)on_fault;
#endif
}

static bool within(const void* address, const u8* start, size_t bytes) {
  const u8* p = static_cast<const u8*>(address);
  return p >= start && p < start + bytes;
}

static const char* where_is(const void* address) {
  if (within(address, ctx.smem + ctx.smem_size, DYNAMIC_WINDOW)) return ", past the end of dynamic shared memory";
  if (within(address, core->static_memory - PAGE, PAGE)) return ", before static shared memory";
  if (within(address, core->static_memory + STATIC_WINDOW, PAGE)) return ", past the end of static shared memory";
  for (const Fiber* fiber : core->fibers) {
    if (within(address, fiber->low - PAGE, PAGE)) return ": the thread's stack is full";
  }
  return "";
}

// After the leap: ctx still names the thread.
void describe_fault() {
  const Lane* lane = running();
  const bool division = core->fault_signal == SIGFPE;
  snprintf(core->error, sizeof core->error, "%s: block (%u,%u,%u) thread (%u,%u,%u): %s at %p%s", core->kernel->name,
           ctx.block_index.x, ctx.block_index.y, ctx.block_index.z, lane->index.x, lane->index.y, lane->index.z,
           division ? "integer division by zero" : "invalid access", core->fault_address,
           division ? "" : where_is(core->fault_address));
}

}  // namespace emu
