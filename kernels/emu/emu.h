// emu.h - host-side CUDA execution model: qualifiers, builtin variables, vector types, warp/block
// primitives and intrinsics, for compiling .cu kernels with a plain host C++17 compiler.
// The scheduler lives in emu.cpp. Never included under nvcc/NVRTC.
#pragma once
#ifdef __CUDACC__
#error "emu.h is for the host compiler only"
#endif
// All standard headers first: the qualifier macros below must not leak into libstdc++.
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
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static thread_local  /* works, but unguarded: prefer SHARED_ARRAY / DYN_SMEM */
#define __constant__ static
#if defined(__SANITIZE_THREAD__)
#define EMU_NOTSAN __attribute__((noinline, no_sanitize("thread")))
#else
#define EMU_NOTSAN inline
#endif

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
#define EMU_VEC(T, N, A)                                                   \
  struct alignas(2 * sizeof(A)) N##2 { T x, y; };                          \
  struct alignas(4 * sizeof(A) > 16 ? 16 : 4 * sizeof(A)) N##4 { T x, y, z, w; }; \
  inline N##2 make_##N##2(T x, T y) { return {x, y}; }                     \
  inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VEC(float, float, float) EMU_VEC(int, int, int) EMU_VEC(unsigned, uint, unsigned)
EMU_VEC(unsigned short, ushort, short) EMU_VEC(double, double, double)
#undef EMU_VEC

namespace emu {
using u8 = uint8_t; using u16 = uint16_t; using u32 = uint32_t; using u64 = uint64_t;
struct Warp; struct Fiber; struct CpQueue;
struct Lane {                       // one CUDA thread
  uint3 tid; u32 lane; Warp* warp; Fiber* fib; CpQueue* cpq;
  const char* wfile; int wline; u8 wkind, exited; u32 wobj; u32 wg_issued, wg_committed;
};
struct Slot { u32 mask, arrived; int op, line; };
struct alignas(64) Warp {
  u32 ready, alive, id, pending; Lane* lanes;
  Slot slot[4];                     // concurrent collectives with disjoint masks
  u64 xv[32], xr[32]; u32 xs[32];   // shuffle exchange: value, result, source lane
  const void* xp[32];               // pointer arguments of ldmatrix/mma
};
struct Ctx { Lane* cur; uint3 bid, bdim, gdim; u8* smem; u32 smem_size; };
extern __thread Ctx ctx;            // per OS thread, constant-initialised: no TLS wrapper call

enum Op { OP_SHFL = 1, OP_VOTE, OP_SYNCWARP, OP_LDSM, OP_LDSM_T, OP_MMA, OP_BAR, OP_MBAR, OP_WGWAIT, OP_YIELD };
enum { SMEM_BASE = 1024 };          // first valid shared-window address, as on sm_90

// Arrive at a warp collective. True in the last lane to arrive, which must execute it at once
// (the others are already marked ready and resume afterwards); false after another lane did so.
bool coll_arrive(u32 mask, int op, const char* file, int line);
void bar_sync(u32 id, u32 count, bool wait, const char* file, int line);  // count 0: whole block
void yield();
[[noreturn]] void fail(const char* fmt, ...);      // abandons the launch; launch() returns the message
void* static_smem(const void* key, size_t bytes, size_t align);
u8* smem_ptr(u32 addr, u32 bytes, const char* what);          // checked shared-window access
void san_access(const void* p, size_t n, bool write);         // TSan/ASan hook for emulated accesses
void fence_acq_rel(const void* obj, bool release);            // TSan happens-before edges

// --- launch: the same shape as cuLaunchKernel ---------------------------------------------
struct Kernel { const char* name; void (*thunk)(void** args); u32 nargs; const u32* arg_size; };
struct Config {
  int threads = 1;                  // OS threads running blocks
  int order = 0;                    // 0 in order, 1 reverse, 2 random (seeded per block)
  int async = 0;                    // cp.async/TMA/wgmma: 0 at issue, 1 as late as legal, 2 random
  u64 seed = 1;
};
extern __thread Config config;
// Returns nullptr, or an error message (valid until the next launch on this OS thread).
const char* launch(const Kernel* k, dim3 grid, dim3 block, u32 smem, void** args);
struct Stats { u64 switches, collectives, blocks, ld_rows, ld_conflict; };   // ld_*: ldmatrix rows, and rows sharing a bank group
Stats stats(bool reset);            // of the calling OS thread
void* device_alloc(size_t bytes);   // guard pages on both sides, filled with NaN bytes
void device_free(void* p);

template <class T> struct Unpack;
template <class... A> struct Unpack<void (*)(A...)> {
  static constexpr u32 n = sizeof...(A);
  static constexpr u32 sizes[sizeof...(A) + 1] = {sizeof(std::decay_t<A>)..., 0};
  template <void (*F)(A...), size_t... I> static void call(void** a, std::index_sequence<I...>) {
    F(*static_cast<std::decay_t<A>*>(a[I])...);
  }
};
template <auto F> void thunk(void** a) {
  using U = Unpack<decltype(F)>;
  U::template call<F>(a, std::make_index_sequence<U::n>{});
}
#define EMU_KERNEL(f) emu::Kernel { #f, &emu::thunk<&f>, emu::Unpack<decltype(&f)>::n, emu::Unpack<decltype(&f)>::sizes }

template <class T> inline u64 bits(T v) { static_assert(sizeof(T) <= 8, ""); u64 b = 0; memcpy(&b, &v, sizeof(T)); return b; }
template <class T> inline T unbits(u64 b) { T v; memcpy(&v, &b, sizeof(T)); return v; }
u64 shfl(u32 mask, u64 v, u32 src, const char* f, int l);   // src: absolute lane, already resolved
u32 vote(u32 mask, bool p, const char* f, int l);           // ballot
}  // namespace emu

#define threadIdx (::emu::ctx.cur->tid)
#define blockIdx (::emu::ctx.bid)
#define blockDim (::emu::ctx.bdim)
#define gridDim (::emu::ctx.gdim)
static constexpr int warpSize = 32;
#define EMU_LOC const char* f_ = __builtin_FILE(), int l_ = __builtin_LINE()

inline void __syncthreads(EMU_LOC) { emu::bar_sync(0, 0, true, f_, l_); }
int __syncthreads_count(int p, const char* f_ = __builtin_FILE(), int l_ = __builtin_LINE());
inline void __syncwarp(unsigned m = 0xffffffffu, EMU_LOC) {
  emu::fence_acq_rel(emu::ctx.cur->warp, true); emu::coll_arrive(m, emu::OP_SYNCWARP, f_, l_);
  emu::fence_acq_rel(emu::ctx.cur->warp, false);
}
inline void __threadfence_block() {} inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __nanosleep(unsigned) { emu::yield(); }
inline unsigned __activemask() { return emu::ctx.cur->warp->alive; }   // discouraged: see notes
template <class T> T __shfl_sync(unsigned m, T v, int s, int w = 32, EMU_LOC) {
  unsigned l = emu::ctx.cur->lane; return emu::unbits<T>(emu::shfl(m, emu::bits(v), (l & ~(w - 1u)) | (s & (w - 1u)), f_, l_));
}
template <class T> T __shfl_xor_sync(unsigned m, T v, int x, int w = 32, EMU_LOC) {
  unsigned l = emu::ctx.cur->lane, s = l ^ x; if ((s & ~(w - 1u)) > (l & ~(w - 1u))) s = l;
  return emu::unbits<T>(emu::shfl(m, emu::bits(v), s, f_, l_));
}
template <class T> T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32, EMU_LOC) {
  unsigned l = emu::ctx.cur->lane; return emu::unbits<T>(emu::shfl(m, emu::bits(v), (l & (w - 1u)) >= d ? l - d : l, f_, l_));
}
template <class T> T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32, EMU_LOC) {
  unsigned l = emu::ctx.cur->lane; return emu::unbits<T>(emu::shfl(m, emu::bits(v), (l & (w - 1u)) + d < (unsigned)w ? l + d : l, f_, l_));
}
inline unsigned __ballot_sync(unsigned m, int p, EMU_LOC) { return emu::vote(m, p, f_, l_); }
inline int __any_sync(unsigned m, int p, EMU_LOC) { return emu::vote(m, p, f_, l_) != 0; }
inline int __all_sync(unsigned m, int p, EMU_LOC) { return emu::vote(m, p, f_, l_) == m; }

// --- atomics (blocks may run on several OS threads) -----------------------------------------
template <class T, class F> inline T emu_rmw(T* p, F f) {
  T o, n; __atomic_load(p, &o, __ATOMIC_RELAXED);
  do { n = f(o); } while (!__atomic_compare_exchange(p, &o, &n, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return o;
}
template <class T> inline T atomicAdd(T* p, std::common_type_t<T> v) { return emu_rmw(p, [=](T o) { return T(o + v); }); }
template <class T> inline T atomicMax(T* p, std::common_type_t<T> v) { return emu_rmw(p, [=](T o) { return o > v ? o : v; }); }
template <class T> inline T atomicMin(T* p, std::common_type_t<T> v) { return emu_rmw(p, [=](T o) { return o < v ? o : v; }); }
template <class T> inline T atomicExch(T* p, std::common_type_t<T> v) { return emu_rmw(p, [=](T) { return v; }); }
template <class T> inline T atomicCAS(T* p, std::common_type_t<T> c, std::common_type_t<T> v) { return emu_rmw(p, [=](T o) { return o == c ? v : o; }); }

// --- math intrinsics -------------------------------------------------------------------------
inline float __expf(float x) { return expf(x); }      inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; } inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }  inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; } inline float __fmul_rn(float a, float b) { return a * b; }
inline float __sinf(float x) { return sinf(x); }      inline float __cosf(float x) { return cosf(x); }
inline unsigned __float_as_uint(float f) { return emu::unbits<unsigned>(emu::bits(f)); }
inline float __uint_as_float(unsigned u) { return emu::unbits<float>(u); }
inline int __float_as_int(float f) { return (int)__float_as_uint(f); }
inline float __int_as_float(int i) { return __uint_as_float((unsigned)i); }
inline int __popc(unsigned x) { return __builtin_popcount(x); } inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }

// --- conversions
namespace emu {
inline u16 f32_to_bf16(float f) { unsigned u = __float_as_uint(f); return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fff : (u16)((u + 0x7fffu + (u >> 16 & 1)) >> 16); }
inline u16 f32_to_f16(float f) {
  unsigned u = __float_as_uint(f), s = u >> 16 & 0x8000, a = u & 0x7fffffff;
  if (a > 0x7f800000) return 0x7fff;
  if (a >= 0x477ff000) return u16(s | 0x7c00);
  if (a < 0x38800000) return u16(s | (__float_as_uint(__uint_as_float(a) + 0.5f) - 0x3f000000));
  return u16(s | ((a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13));
}
inline float f16_to_f32(u16 h) {
  unsigned s = (unsigned)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
  if (e == 31) return __uint_as_float(s | 0x7f800000 | m << 13);
  if (e == 0) { float v = (float)m * 0x1p-24f; return s ? -v : v; }
  return __uint_as_float(s | (e + 112) << 23 | m << 13);
}
enum class Half { Bf16, F16 };
struct Registrar { Registrar(Kernel k); };
inline u32 smem_u32(const void* p) { return u32(static_cast<const unsigned char*>(p) - ctx.smem) + SMEM_BASE; }
void cp_async(u32 dst, const void* src, u32 bytes, u32 src_bytes);
void cp_commit(); void cp_wait(u32 keep_groups);
void ldmatrix(u32* r, const u32* addr, int n, bool trans, const char* f, int l);
void mma(float* d, const u32* a, const u32* b, int mi, int nj, Half h, const char* f, int l);
void mma_smem(float* d, const u32* aa, const u32* ba, int mi, int nj, Half h, const char* f, int l);
}
