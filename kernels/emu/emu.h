// What a kernel file sees when the host compiler takes it: qualifiers, built-in variables, vector types, barriers,
// shuffles, votes, and the entry points behind arch.cuh and arch90.cuh. Arithmetic and atomics are in intrinsics.h.
//
// Every CUDA thread is a fiber. One OS thread runs one block or cluster at a time, so nothing here is shared between OS
// threads except global memory. interface.h is what the library binds.
#pragma once
#ifdef __CUDACC__
#error "emu.h is for the host compiler only"
#endif
// All standard headers first: the qualifier macros below must not leak into them.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __cluster_dims__(...)
#define __align__(n) __attribute__((aligned(n)))

#define EMU_LOC const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()

// ---- vector types -------------------------------------------------------------------------------------------------

struct uint3 { unsigned x, y, z; };
struct int3 { int x, y, z; };
struct float3 { float x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

#define EMU_VECTOR(T, name)                                                                       \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                              \
  struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; };              \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                      \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTOR(float, float)
EMU_VECTOR(double, double)
EMU_VECTOR(int, int)
EMU_VECTOR(unsigned, uint)
EMU_VECTOR(short, short)
EMU_VECTOR(unsigned short, ushort)
EMU_VECTOR(signed char, char)
EMU_VECTOR(unsigned char, uchar)
#undef EMU_VECTOR
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }

namespace emu {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;

// ---- the running thread -------------------------------------------------------------------------------------------

struct Thread {
  uint3 index;
  u32 lane;  // within its warp
};
struct Context {
  Thread* thread;  // null outside a kernel
  uint3 block_index, block_dim, grid_dim;
  u8* smem;  // dynamic shared memory of the running block
  u32 smem_size;
};
extern __thread Context ctx;  // of this OS thread; __thread, not thread_local: no wrapper call at each use

// Abandons the launch, which then returns the message.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Lets other threads of the block run: what every wait in a loop must call.
void yield();

// ---- collectives: `file` and `line` of the call, which all lanes must share ---------------------------------------

u64 shuffle(u32 mask, u64 value, u32 source_lane, const char* file, int line);
u32 ballot(u32 mask, bool predicate, const char* file, int line);
void syncwarp(u32 mask, const char* file, int line);
// bar.sync, or bar.arrive when `wait` is false, of `count` threads; 0 is all of the block.
void bar_sync(u32 id, u32 count, bool wait, const char* file, int line);
// __syncthreads that also counts the threads whose predicate holds.
u32 syncthreads_count(bool predicate, const char* file, int line);
u32 active_lanes();
void thread_fence();

// ---- behind arch.cuh ----------------------------------------------------------------------------------------------

enum class Half { Bf16, F16 };

// Static shared memory: one array a block for each key.
void* static_smem(const void* key, size_t bytes, size_t align);
// The address that instructions take; the window starts at 1024 as on sm_90.
u32 smem_u32(const void* pointer);

void cp_async(u32 to, const void* from, u32 bytes, u32 source_bytes);
void cp_commit();
void cp_wait(u32 keep_groups);

// n loads or stores of four 8x8 tiles, registers [n][4].
void ldmatrix(u32* r, const u32* address, int n, bool transposed, const char* file, int line);
void stmatrix(const u32* r, const u32* address, int n, bool transposed, const char* file, int line);
// d[i][j][4] += a[i][4] b[j][2].
void mma(float* d, const u32* a, const u32* b, int i, int j, Half kind, const char* file, int line);
void mma_smem(float* d, const u32* a_at, const u32* b_at, int i, int j, Half kind, const char* file, int line);

// ---- behind arch90.cuh --------------------------------------------------------------------------------------------

void mbar_init(u32 barrier, u32 count);
void mbar_arrive(u32 barrier, u32 expected_bytes);
bool mbar_try_wait(u32 barrier, u32 parity, const char* file, int line);
void fence_proxy_async();

void tma_load(u32 to, const void* map, u32 barrier, const int* at, int rank);
void tma_store(const void* map, u32 from, const int* at, int rank);
void tma_store_commit();
void tma_store_wait(u32 keep_groups);

void wgmma_fence();
void wgmma_commit();
void wgmma_wait(u32 keep_groups, const char* file, int line);
// d (64 x n, n / 2 registers) = A B + (scale_d ? d : 0); transposed operands are the ones not contiguous along k.
void wgmma(float* d, int n, u64 a, u64 b, bool a_transposed, bool b_transposed, bool scale_d, Half kind,
           const char* file, int line);
// The same with A in registers, four of each lane.
void wgmma_registers(float* d, int n, const u32* a, u64 b, bool b_transposed, bool scale_d, Half kind,
                     const char* file, int line);

// ---- clusters -----------------------------------------------------------------------------------------------------

u32 cluster_rank();
void cluster_sync(const char* file, int line);
const void* cluster_at(const void* at, u32 bytes, u32 rank, const char* file, int line);

// ---- registered kernels -------------------------------------------------------------------------------------------

struct Kernel {
  const char* name;
  void (*call)(void** args);
  u32 arg_count;
  const u32* arg_size;
  u32 cluster;  // blocks that run together
};
// Links itself into the list of kernels, whose head needs no initialisation: any order of static objects will do.
struct Registrar {
  explicit Registrar(const Kernel& kernel);
  Kernel kernel;
  const Registrar* next;
};

template <class F> struct Signature;
template <class... A> struct Signature<void (*)(A...)> {
  static constexpr u32 count = sizeof...(A);
  static constexpr u32 sizes[sizeof...(A) + 1] = {sizeof(std::decay_t<A>)..., 0};
  template <void (*F)(A...), size_t... I> static void call([[maybe_unused]] void** args, std::index_sequence<I...>) {
    F(*static_cast<std::decay_t<A>*>(args[I])...);
  }
};
template <auto F> void call_kernel(void** args) {
  using S = Signature<decltype(F)>;
  S::template call<F>(args, std::make_index_sequence<S::count>{});
}
#define EMU_KERNEL(f, blocks)                                                                                   \
  emu::Kernel {                                                                                                 \
    #f, &emu::call_kernel<&f>, emu::Signature<decltype(&f)>::count, emu::Signature<decltype(&f)>::sizes, blocks \
  }

template <class T> inline u64 to_bits(T value) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  u64 bits = 0;
  memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T> inline T from_bits(u64 bits) {
  T value;
  memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emu

// ---- built-in variables -------------------------------------------------------------------------------------------

#define threadIdx (::emu::ctx.thread->index)
#define blockIdx (::emu::ctx.block_index)
#define blockDim (::emu::ctx.block_dim)
#define gridDim (::emu::ctx.grid_dim)
static constexpr int warpSize = 32;

// ---- barriers and fences ------------------------------------------------------------------------------------------

inline void __syncthreads(EMU_LOC) { emu::bar_sync(0, 0, true, file_, line_); }
inline int __syncthreads_count(int p, EMU_LOC) {
  return static_cast<int>(emu::syncthreads_count(p != 0, file_, line_));
}
inline int __syncthreads_or(int p, EMU_LOC) { return emu::syncthreads_count(p != 0, file_, line_) != 0; }
inline int __syncthreads_and(int p, EMU_LOC) { return emu::syncthreads_count(p == 0, file_, line_) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_LOC) { emu::syncwarp(mask, file_, line_); }
inline void __threadfence_block() {}
inline void __threadfence() { emu::thread_fence(); }
inline void __threadfence_system() { emu::thread_fence(); }
inline void __nanosleep(unsigned) { emu::yield(); }

// ---- shuffles and votes -------------------------------------------------------------------------------------------

template <class T> inline T emu_shuffle(unsigned mask, T value, unsigned source, const char* file, int line) {
  return emu::from_bits<T>(emu::shuffle(mask, emu::to_bits(value), source, file, line));
}
template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMU_LOC) {
  const unsigned lane = emu::ctx.thread->lane, within = static_cast<unsigned>(width) - 1;
  return emu_shuffle(mask, value, (lane & ~within) | (static_cast<unsigned>(source) & within), file_, line_);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32, EMU_LOC) {
  const unsigned lane = emu::ctx.thread->lane, group = ~(static_cast<unsigned>(width) - 1);
  const unsigned other = lane ^ static_cast<unsigned>(flip);
  return emu_shuffle(mask, value, (other & group) > (lane & group) ? lane : other, file_, line_);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_LOC) {
  const unsigned lane = emu::ctx.thread->lane, within = static_cast<unsigned>(width) - 1;
  return emu_shuffle(mask, value, (lane & within) >= delta ? lane - delta : lane, file_, line_);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_LOC) {
  const unsigned lane = emu::ctx.thread->lane, within = static_cast<unsigned>(width) - 1;
  return emu_shuffle(mask, value, (lane & within) + delta <= within ? lane + delta : lane, file_, line_);
}
inline unsigned __ballot_sync(unsigned mask, int p, EMU_LOC) { return emu::ballot(mask, p != 0, file_, line_); }
inline int __any_sync(unsigned mask, int p, EMU_LOC) { return emu::ballot(mask, p != 0, file_, line_) != 0; }
inline int __all_sync(unsigned mask, int p, EMU_LOC) { return emu::ballot(mask, p != 0, file_, line_) == mask; }
inline unsigned __activemask() { return emu::active_lanes(); }  // of threads that have not ended: do not rely on it

#include "intrinsics.h"
