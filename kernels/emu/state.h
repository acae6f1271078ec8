// The state of one OS thread that runs blocks, shared by the emulator's files and seen by no kernel.
//
// A Core is the emulator's streaming multiprocessor: it holds one block at a time, with its warps, barriers, shared
// memory and asynchronous engines. A cluster of blocks takes as many cores, all of one OS thread. Cores are lent to
// launches (launch.cpp) and keep their fibers between them.
#pragma once
#include "emu.h"
#include "sanitize.h"

#define EMU_LIKELY(x) __builtin_expect(!!(x), 1)
#define EMU_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define EMU_INLINE inline __attribute__((always_inline))  // on the way from one thread to the next

namespace emu {

constexpr u32 MAX_THREADS = 1024, MAX_WARPS = 32, FULL_MASK = 0xffffffffu;
constexpr u32 PAGE = 4096;
constexpr u32 MAX_DYNAMIC_SHARED = 227 * 1024, MAX_STATIC_SHARED = 48 * 1024;
constexpr u32 DYNAMIC_WINDOW = 256 * 1024, STATIC_WINDOW = 64 * 1024;
constexpr u32 READ_BYTES = 16;                   // what a lane's address of ldmatrix stands for
constexpr u32 DYNAMIC_BASE = 1024;               // first address of dynamic shared memory, as on sm_90
constexpr u32 STATIC_BASE = DYNAMIC_WINDOW;      // static arrays lie beyond what a wgmma descriptor can name
constexpr int POISON = 0xff;                     // unwritten memory reads as NaN, in every float format

enum class Op : u8 {
  None, Shuffle, Vote, Syncwarp, Ldmatrix, LdmatrixTrans, Stmatrix, StmatrixTrans, Mma, MmaSmem,
  Barrier, ClusterBarrier, Mbarrier, WgmmaWait, Yield
};
const char* op_name(Op op);

// Grow-only array. Library vectors call memmove and free, which ThreadSanitizer would take for accesses of the
// running CUDA thread.
template <class T> struct List {
  static_assert(std::is_trivially_copyable_v<T>, "items are moved as bytes");
  T* items = nullptr;
  u32 count = 0, capacity = 0;

  T& push_unset() {
    if (count == capacity) grow();
    return items[count++];
  }
  void push(const T& item) { copy_bytes(&push_unset(), &item, sizeof(T)); }
  T pop() { return items[--count]; }
  void drop_front(u32 n) {
    for (u32 i = n; i < count; ++i) copy_bytes(&items[i - n], &items[i], sizeof(T));
    count -= n;
  }
  void clear() { count = 0; }
  T& operator[](u32 i) { return items[i]; }
  T* begin() { return items; }
  T* end() { return items + count; }

 private:
  void grow() {
    const u32 wider = capacity ? 2 * capacity : 32;
    T* moved = static_cast<T*>(malloc(wider * sizeof(T)));
    if (!moved) abort();
    for (u32 i = 0; i < count; ++i) copy_bytes(&moved[i], &items[i], sizeof(T));
#if !defined(EMU_TSAN)
    free(items);
#endif
    items = moved;
    capacity = wider;
  }
};

// ---- fibers (fiber.cpp) -------------------------------------------------------------------------------------------

struct Fiber {
  void* sp;      // where it was left
  u8 *low, *top;  // its stack
  void* fake;    // AddressSanitizer's
};

// ---- warps and barriers (schedule.cpp, collective.cpp) ------------------------------------------------------------

struct Warp;

// One CUDA thread. What it waits for is kept for deadlock reports.
struct Lane : Thread {
  u32 id;  // within the block
  Warp* warp;
  Fiber* fiber;  // null before it starts
  bool exited;
  Op wait_op;
  const char* wait_file;
  int wait_line;
  u32 wait_object;
  u32 wgmmas_issued, wgmma_groups;
};

// A collective under way: the lanes of `mask`, of which `arrived` are here.
struct Meeting {
  u32 mask, arrived;
  Op op;
  int line;
};
constexpr u32 MAX_MEETINGS = 4;  // with disjoint masks

struct alignas(64) Warp {
  u32 id, alive, ready, meetings;
  u32 fenced;  // lanes whose last fence.proxy.async the others have yet to come to
  Lane* lanes;
  Meeting meeting[MAX_MEETINGS];
  u64 value[32], result[32];   // of a shuffle or vote
  u32 source[32];
  const void* operands[32];    // of a tensor instruction: a record on each lane's stack
};

struct Barrier {
  u32 arrived, count, generation;
  int line;
  u32 waiting[MAX_WARPS];  // lanes of each warp
  u32 votes, votes_of[2];  // predicates counted; results of the last two generations
  char edge[2];            // alternating, or a fast thread's next arrival would order too much
};

// ---- asynchrony (async.cpp, tma.cpp, wgmma.cpp) -------------------------------------------------------------------

struct SharedCopy {  // cp.async
  u32 to, bytes, source_bytes;
  const void* from;
};
struct CopyQueue {
  List<SharedCopy> copies;
  List<u32> group_ends;
};

struct alignas(64) HostTensorMap {  // what emu_tensor_map writes into the 128 opaque bytes
  u32 magic;
  u8 rank, element_bytes, swizzle, pad;
  u64 base;
  u32 dim[5];
  u64 stride[4];
  u16 box[5];
};
static_assert(sizeof(HostTensorMap) == 128, "the size of a CUtensorMap");

struct TensorCopy {  // TMA, either way
  HostTensorMap map;  // copied: the thread that issued it may end first, and its parameters with it
  u32 shared, barrier;
  int at[5];
};
struct StoreQueue {
  List<TensorCopy> stores;
  List<u32> group_ends;
};
constexpr u32 MAX_TENSOR_LOADS = 64;

struct WgmmaOperands {  // the same in all 128 threads
  u64 a, b;
  int n;
  bool a_transposed, b_transposed, scale_d, a_in_registers;
  Half kind;
};
struct Wgmma {
  WgmmaOperands operands;
  u32 arrived;
  float* d[128];
  const u32* a[128];  // where it is in registers
};
struct WarpGroup {
  List<Wgmma> ops;
  List<u32> group_ends;
  u32 done;
  bool fenced[128];
  char issued_edge, done_edge;
};

// ---- tensor instructions (tensor.cpp, wgmma.cpp) ------------------------------------------------------------------

struct TensorSpace {  // the matrices of one instruction, row-major, in float
  alignas(64) float a[128 * 16];
  alignas(64) float b[16 * 256];
  alignas(64) float c[128 * 128];
};

// ---- static shared memory (memory.cpp) ----------------------------------------------------------------------------

struct StaticArray {
  const void* key;
  u32 start, bytes;
};

// ---- clusters (cluster.cpp) ---------------------------------------------------------------------------------------

constexpr u32 MAX_CLUSTER = 8;
[[maybe_unused]] constexpr u32 IDENTITY_SETS = 3;  // of ThreadSanitizer's

struct Core;

// Blocks that run together, on one OS thread; most often one alone.
struct Cluster {
  Core* blocks[MAX_CLUSTER];
  u32 size;
  u32 arrived, generation;  // of the barrier
  int line;
  char edge[2];  // alternating, as those of a Barrier
  Fiber main;
};

// ---- the core -----------------------------------------------------------------------------------------------------

enum class Order : u32 { Forward, Reverse, Random };
enum class Async : u32 { Early, Late, Random };
struct Schedule {
  u32 threads;
  Order order;
  Async async;
  u32 pad;
  u64 seed;
};

struct Stats {
  u64 switches, collectives, blocks, ldmatrix_rows, conflicting_rows;
};

struct Core {
  const Kernel* kernel;
  void** args;
  Schedule schedule;
  Stats stats;

  Cluster* cluster;
  Cluster led;      // that of the blocks whose first this is
  u32 rank;
  Context context;  // while another block of the cluster runs

  u32 threads, warp_count;  // of the block
  u32 alive, ready_warps;   // threads, bits
  u64 random;
  u8 priority[MAX_WARPS];   // of warps, for the random order
  bool uniform;
  u32 idle_yields;
  Warp warps[MAX_WARPS];
  Lane lanes[MAX_THREADS];
  Barrier barriers[16];
  u32 cluster_waiting[MAX_WARPS];  // lanes of each warp

  u8 *dynamic_memory, *static_memory, *shadow;
  u32 static_used;
  List<StaticArray> statics;
  bool shadow_valid, shadow_late;  // late: a fence has not been carried out
  u32 readers[DYNAMIC_WINDOW / READ_BYTES], reading;  // bits of warps: that have read it unfenced; that have read any

  CopyQueue copies[MAX_THREADS];
  StoreQueue stores[MAX_THREADS];
  TensorCopy loads[MAX_TENSOR_LOADS];
  u32 load_count;
  bool used_copies, used_stores, used_wgmma;  // since the block began: what is left to clear
  WarpGroup groups[8];
  TensorSpace space;

  List<Fiber*> idle_fibers, fibers;
  bool failed;
  alignas(16) u8 signal_stack[32 * 1024];
  int fault_signal;
  const void* fault_address;
  char error[4096];

  char start_edge, end_edge, load_edge, store_edge, fail_edge;
#if defined(EMU_TSAN)
  // Sets of identities and stacks, used by consecutive blocks, so that races between blocks show; an odd number, or those
  // of every second block would not. Of a cluster each block has one, and blocks of the next cluster change cores.
  void* identity[IDENTITY_SETS][MAX_THREADS];
  Fiber* identity_fiber[IDENTITY_SETS][MAX_THREADS];
  void* engines[2];  // the copy engine, the tensor cores
  void *main_identity, *interrupted;
  u32 identity_set;
#endif
};
extern __thread Core* core;  // of this OS thread, while it runs a launch

#if defined(EMU_TSAN)
inline u32 identity_sets() { return core->cluster->size > 1 ? 1 : IDENTITY_SETS; }
#endif

inline Lane* running() { return static_cast<Lane*>(ctx.thread); }

// Uniform in 0 .. n.
inline u32 random_below(u32 n) {
  u64 x = core->random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  core->random = x;
  return static_cast<u32>((x >> 32) * n >> 32);
}
inline bool one_in(u32 n) { return random_below(n) == 0; }
// Whether an asynchronous operation that is issued now also runs now.
inline bool runs_at_issue() {
  return core->schedule.async == Async::Early || (core->schedule.async == Async::Random && one_in(2));
}

// fiber.cpp
Fiber* take_fiber(Lane* lane);
void give_fiber(Core* owner, Fiber* fiber);
void switch_to_lane(Fiber* from, Lane* to);
void switch_to_main(Fiber* from);
[[noreturn]] void leap_to_main();
void abandon_fibers();
void create_identities();
void destroy_identities();
enum class Engine { Copy, Tensor };
// Between these, reported accesses are those of an asynchronous engine.
void enter_engine(Engine engine, const void* issued_edge);
void leave_engine(const void* done_edge);

// schedule.cpp
void run_cluster(u64 first);
void block_main();
void wait_for(Op op, const char* file, int line, u32 object);
inline void set_ready(Warp* warp, u32 lanes) {
  warp->ready |= lanes;
  core->ready_warps |= 1u << warp->id;
}

// cluster.cpp
void turn_to(Core* other);
void turn_to_another();

// collective.cpp
// True in the last lane to arrive, which must carry out the operation at once; the others resume afterwards.
bool arrive(u32 mask, Op op, const char* file, int line);

// memory.cpp
Core* new_core();
void clear_shared_memory();
// Null, or what was overwritten.
const char* shared_memory_damage();
u8* shared_ptr(u32 address, u32 bytes, const char* what);
const char* device_memory_damage(const Kernel* kernel, void** args, char* text, size_t length);

// fault.cpp
void catch_faults();
void describe_fault();

// mbarrier.cpp
const void* mbar_edge(u32 barrier);
void mbar_complete_bytes(u32 barrier, u32 bytes);

// tma.cpp
const char* encode_tensor_map(void* map, int rank, int element_bytes, void* base, const u64* dims, const u64* strides,
                              const u32* box, int swizzle_bytes);
void finish_one_load(bool random);
// Bytes that the copy engine or the tensor cores read, which must have been shown to the async proxy.
const u8* async_read(u32 address, u32 bytes, const char* what);
// A warp has read the 16 bytes there by ldmatrix.
void has_read(u32 address);
u32 swizzled(u32 address, u32 span);

// product.cpp
// c (rows, n) += a (rows, 16) b (16, n), row-major; rows and n are multiples of 8, c of leading dimension n.
void product16(float* c, const float* a, const float* b, int rows, int n);

}  // namespace emu
