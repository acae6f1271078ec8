// Launches: the registry of kernels, the blocks of a grid over OS threads, and the C interface (interface.h).
//
// A launch is self-contained: many OS threads may launch at once. Each OS thread that runs blocks borrows a Core, so
// that stacks and arenas outlive short-lived threads.
#include <signal.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "interface.h"
#include "state.h"

namespace emu {

// ---- the registry -------------------------------------------------------------------------------------------------

static const Registrar* registered;

Registrar::Registrar(const Kernel& k) : kernel(k), next(registered) { registered = this; }

// ---- cores --------------------------------------------------------------------------------------------------------

static std::mutex cores_lock;
static std::vector<Core*>& idle_cores() {
  static std::vector<Core*>* const cores = new std::vector<Core*>;
  return *cores;
}

// For the calling OS thread, until the end of scope: a core for each block of a cluster, and a stack for the fault
// handler.
class BorrowedCores {
 public:
  explicit BorrowedCores(u32 count) : cores_(count) {
    {
      std::lock_guard<std::mutex> locked(cores_lock);
      for (Core*& borrowed : cores_) {
        if (idle_cores().empty()) break;
        borrowed = idle_cores().back();
        idle_cores().pop_back();
      }
    }
    for (Core*& borrowed : cores_) {
      if (!borrowed) borrowed = new_core();
    }
    core = cores_[0];
    catch_faults();
    stack_t stack{};
    stack.ss_sp = core->signal_stack;
    stack.ss_size = sizeof core->signal_stack;
    sigaltstack(&stack, &previous_stack_);
  }
  ~BorrowedCores() {
    sigaltstack(&previous_stack_, nullptr);
    std::lock_guard<std::mutex> locked(cores_lock);
    // The first one on top again: launches without clusters stay with few cores, as a sanitizer has few identities.
    for (u32 i = static_cast<u32>(cores_.size()); i-- > 0;) idle_cores().push_back(cores_[i]);
    core = nullptr;
  }
  BorrowedCores(const BorrowedCores&) = delete;
  BorrowedCores& operator=(const BorrowedCores&) = delete;

  Core* operator[](u32 i) const { return cores_[i]; }

 private:
  std::vector<Core*> cores_;
  stack_t previous_stack_{};
};

// ---- one launch ---------------------------------------------------------------------------------------------------

struct Launch {
  const Kernel* kernel;
  dim3 grid, block;
  u32 smem;
  void** args;
  Schedule schedule;
  u64 clusters;
  std::atomic<u64> next_cluster{0};
  std::atomic<bool> failed{false};
  std::mutex lock;  // of what follows
  char error[4096] = "";
  Stats stats{};
};

// The core of block `rank` of the clusters that `leader` leads.
static void set_up(const Launch& launch, Core* leader, u32 rank) {
  core->cluster = &leader->led;
  core->cluster->blocks[rank] = core;
  core->cluster->size = launch.kernel->cluster;
  core->rank = rank;
  ctx.thread = nullptr;
  core->kernel = launch.kernel;
  core->args = launch.args;
  core->schedule = launch.schedule;
  core->failed = false;
  core->fault_signal = 0;
  core->stats = Stats{};
  core->used_copies = core->used_stores = core->used_wgmma = true;  // a failed launch leaves work behind
  const dim3 block = launch.block;
  core->threads = block.x * block.y * block.z;
  core->warp_count = (core->threads + 31) / 32;
  ctx.block_dim = {block.x, block.y, block.z};
  ctx.grid_dim = {launch.grid.x, launch.grid.y, launch.grid.z};
  ctx.smem_size = launch.smem;
  ctx.smem = core->dynamic_memory + DYNAMIC_WINDOW - ((launch.smem + 1023) & ~1023u);
  for (u32 i = 0; i < core->threads; ++i) {
    Lane& lane = core->lanes[i];
    lane.id = i;
    lane.index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    lane.lane = i % 32;
    lane.warp = &core->warps[i / 32];
  }
  for (u32 i = 0; i < core->warp_count; ++i) {
    core->warps[i].id = i;
    core->warps[i].lanes = &core->lanes[i * 32];
  }
  create_identities();
}

// The blocks have ended: null, or what is wrong.
static const char* finish_cluster() {
  const Cluster& cluster = *core->cluster;
  const char* wrong = nullptr;
  if (core->failed) {
    if (core->fault_signal) describe_fault();
    wrong = core->error;
  }
  const bool failed = wrong != nullptr;
  for (u32 i = 0; i < cluster.size; ++i) {
    turn_to(cluster.blocks[i]);
    if (failed) {
      abandon_fibers();
    } else if (const char* damage = wrong ? nullptr : shared_memory_damage()) {
      snprintf(core->error, sizeof core->error, "%s: block (%u,%u,%u): %s", core->kernel->name, ctx.block_index.x,
               ctx.block_index.y, ctx.block_index.z, damage);
      wrong = core->error;
    }
  }
  turn_to(cluster.blocks[0]);
  return wrong;
}

static void add_stats(Launch& launch, const Stats& stats) {
  launch.stats.switches += stats.switches;
  launch.stats.collectives += stats.collectives;
  launch.stats.blocks += stats.blocks;
  launch.stats.ldmatrix_rows += stats.ldmatrix_rows;
  launch.stats.conflicting_rows += stats.conflicting_rows;
}

static void run_blocks(Launch& launch) {
  const u32 size = launch.kernel->cluster;
  BorrowedCores borrowed(size);
  for (u32 i = 0; i < size; ++i) {
    turn_to(borrowed[i]);
    set_up(launch, borrowed[0], i);
  }
  turn_to(borrowed[0]);
  const char* wrong = nullptr;
  while (!wrong && !launch.failed) {
    u64 cluster = launch.next_cluster.fetch_add(1);
    if (cluster >= launch.clusters) break;
    if (launch.schedule.order == Order::Reverse) cluster = launch.clusters - 1 - cluster;
    run_cluster(cluster * size);
    wrong = finish_cluster();
    ctx.thread = nullptr;
  }
  for (u32 i = 0; i < size; ++i) {
    acquire(&borrowed[i]->end_edge);
    acquire(&borrowed[i]->fail_edge);
  }
  std::lock_guard<std::mutex> locked(launch.lock);
  if (wrong && !launch.failed.exchange(true)) memcpy(launch.error, wrong, sizeof launch.error);
  for (u32 i = 0; i < size; ++i) add_stats(launch, borrowed[i]->stats);
}

// ---- OS threads that help -----------------------------------------------------------------------------------------

class Pool {
 public:
  // A caller that finds the pool taken runs its blocks itself.
  void run(Launch& launch, u32 threads) {
    std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
    if (!mine || threads <= 1) return run_blocks(launch);
    {
      std::lock_guard<std::mutex> locked(lock_);
      while (helpers_ < threads - 1) std::thread([this, id = helpers_++] { help(id); }).detach();
      launch_ = &launch;
      wanted_ = working_ = threads - 1;
      generation_++;
    }
    start_.notify_all();
    run_blocks(launch);
    std::unique_lock<std::mutex> locked(lock_);
    done_.wait(locked, [this] { return working_ == 0; });
  }

 private:
  void help(u32 id) {
    u64 seen = 0;
    std::unique_lock<std::mutex> locked(lock_);
    for (;;) {
      start_.wait(locked, [&] { return generation_ != seen; });
      seen = generation_;
      if (id >= wanted_) continue;
      Launch& launch = *launch_;
      locked.unlock();
      run_blocks(launch);
      locked.lock();
      if (--working_ == 0) done_.notify_one();
    }
  }

  std::mutex busy_, lock_;
  std::condition_variable start_, done_;
  Launch* launch_ = nullptr;
  u64 generation_ = 0;
  u32 helpers_ = 0, wanted_ = 0, working_ = 0;
};

static Pool& pool() {
  static Pool* const held = new Pool;  // never destroyed: its threads never end
  return *held;
}

static const char* check_shape(const Kernel& kernel, const dim3& grid, const dim3& block, u32 smem) {
  const u64 threads = u64{block.x} * block.y * block.z;
  if (!threads || threads > MAX_THREADS || block.z > 64) return "a block has 1 to 1024 threads, at most 64 along z";
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return "the grid has no blocks, or more than 2147483647, 65535, 65535";
  }
  if (kernel.cluster > MAX_CLUSTER || grid.x % kernel.cluster) {
    return "the grid's first size is no multiple of the blocks of a cluster, or these are more than 8";
  }
  if (smem > MAX_DYNAMIC_SHARED) return "more than 227 KB of dynamic shared memory";
  return nullptr;
}

static __thread Stats thread_stats;  // of the launches that this OS thread made

}  // namespace emu

// ---- the C interface ----------------------------------------------------------------------------------------------

extern "C" size_t emu_kernel_count() {
  size_t count = 0;
  for (const emu::Registrar* r = emu::registered; r; r = r->next) count++;
  return count;
}

extern "C" const char* emu_kernel_name(size_t index) {
  const emu::Registrar* r = emu::registered;
  while (r && index--) r = r->next;
  return r ? r->kernel.name : nullptr;
}

extern "C" const void* emu_function(const char* name) {
  for (const emu::Registrar* r = emu::registered; r; r = r->next) {
    if (strcmp(r->kernel.name, name) == 0) return &r->kernel;
  }
  return nullptr;
}

extern "C" uint32_t emu_arg_count(const void* function) {
  return static_cast<const emu::Kernel*>(function)->arg_count;
}

extern "C" uint32_t emu_arg_size(const void* function, uint32_t i) {
  const emu::Kernel* kernel = static_cast<const emu::Kernel*>(function);
  return i < kernel->arg_count ? kernel->arg_size[i] : 0;
}

extern "C" int32_t emu_launch(const void* function, const uint32_t grid[3], const uint32_t block[3], uint32_t smem,
                              void** args, const emu_schedule* schedule, char* error, size_t error_length) {
  using namespace emu;
  Launch launch;
  launch.kernel = static_cast<const Kernel*>(function);
  launch.grid = {grid[0], grid[1], grid[2]};
  launch.block = {block[0], block[1], block[2]};
  if (const char* wrong = check_shape(*launch.kernel, launch.grid, launch.block, smem)) {
    snprintf(error, error_length, "%s: %s", launch.kernel->name, wrong);
    return 1;
  }
  if (schedule->order > 2 || schedule->async > 2) {
    snprintf(error, error_length, "%s: no such schedule", launch.kernel->name);
    return 1;
  }
  launch.smem = smem;
  launch.args = args;
  launch.schedule = {schedule->threads, static_cast<Order>(schedule->order), static_cast<Async>(schedule->async), 0,
                     schedule->seed};
  launch.clusters = u64{grid[0]} / launch.kernel->cluster * grid[1] * grid[2];
  u64 threads = schedule->threads < launch.clusters ? schedule->threads : launch.clusters;
#if defined(EMU_TSAN)
  if (threads > 1) threads = 1;  // what each thread knows of all others is the sanitizer's work, and its memory
#endif
  pool().run(launch, static_cast<u32>(threads));
  thread_stats.switches += launch.stats.switches;
  thread_stats.collectives += launch.stats.collectives;
  thread_stats.blocks += launch.stats.blocks;
  thread_stats.ldmatrix_rows += launch.stats.ldmatrix_rows;
  thread_stats.conflicting_rows += launch.stats.conflicting_rows;
  char text[512];
  const char* message = launch.failed ? launch.error : device_memory_damage(launch.kernel, args, text, sizeof text);
  if (!message) return 0;
  snprintf(error, error_length, "%s", message);
  return 1;
}

extern "C" int32_t emu_sanitized() {
#if defined(EMU_ASAN)
  return 1;
#elif defined(EMU_TSAN)
  return 2;
#else
  return 0;
#endif
}

extern "C" void emu_stats(uint64_t out[5], int reset) {
  const emu::Stats& stats = emu::thread_stats;
  const uint64_t all[5] = {stats.switches, stats.collectives, stats.blocks, stats.ldmatrix_rows,
                           stats.conflicting_rows};
  memcpy(out, all, sizeof all);
  if (reset) emu::thread_stats = emu::Stats{};
}

extern "C" int emu_tensor_map(void* map, int rank, int element_bytes, void* base, const uint64_t* dims,
                              const uint64_t* strides, const uint32_t* box, int swizzle_bytes, char* error,
                              size_t error_length) {
  const char* wrong = emu::encode_tensor_map(map, rank, element_bytes, base, dims, strides, box, swizzle_bytes);
  if (!wrong) return 0;
  snprintf(error, error_length, "tensor map: %s", wrong);
  return 1;
}
