// The dialect that every kernel is written in: the same file is taken by nvcc, by NVRTC without an include path, and
// by the host compiler, where kernels/emu/emu.h stands in for the CUDA built-ins.
//
// All PTX of the sm_80 class is here, each instruction beside its host twin; arch90.cuh holds Hopper's. A kernel file
// includes nothing else but its siblings in this folder. Storage types are plain structs: arithmetic is in float.
#pragma once

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

struct bf16 { u16 x; };
struct f16 { u16 x; };

#ifdef __CUDACC__
extern __shared__ __align__(1024) unsigned char arch_dynamic_shared[];  // once: a second declaration draws a warning
#define DYN_SMEM(name) unsigned char* const name = arch_dynamic_shared
#define SHARED_ARRAY(T, name, n) __shared__ T name[n]
#define ARCH_FN static __device__ __forceinline__
#define REGISTER_KERNEL(name)
#define REGISTER_CLUSTER(name, blocks)
#define ARCH_LOC
#define ARCH_LOC_ONLY
#else
#include "emu.h"
#define DYN_SMEM(name) unsigned char* const name = ::emu::ctx.smem
#define SHARED_ARRAY(T, name, n)  \
  static const char name##_key = 0; \
  T(&name)[n] = *static_cast<T(*)[n]>(::emu::static_smem(&name##_key, sizeof(T) * (n), alignof(T)))
#define ARCH_FN static inline
#define REGISTER_CLUSTER(name, blocks) static const emu::Registrar name##_registrar{EMU_KERNEL(name, blocks)};
#define REGISTER_KERNEL(name) REGISTER_CLUSTER(name, 1)
#define ARCH_LOC , const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()
#define ARCH_LOC_ONLY const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()
#endif

// One line at the bottom of a kernel file: ENTRY(T, suffix) for each storage type. WITHOUT_F16 is for builds whose
// purpose f16, which has the source of bf16, does not serve.
#ifdef WITHOUT_F16
#define FOR_EACH_HALF(ENTRY) ENTRY(bf16, bf16)
#else
#define FOR_EACH_HALF(ENTRY) ENTRY(bf16, bf16) ENTRY(f16, f16)
#endif
#define FOR_EACH_DTYPE(ENTRY) ENTRY(float, f32) FOR_EACH_HALF(ENTRY)

// N elements that move as one load or store; the address must be a multiple of its size.
template <class T, int N> struct alignas(sizeof(T) * N) Pack { T v[N]; };
using Two = Pack<float, 2>;

namespace arch {

// ---- conversions: to nearest even, NaN kept -----------------------------------------------------------------------

ARCH_FN float to_f32(float x) { return x; }
ARCH_FN float to_f32(bf16 x) { return __uint_as_float(static_cast<u32>(x.x) << 16); }
ARCH_FN float to_f32(f16 x) {
#ifdef __CUDACC__
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.x));
  return y;
#else
  return emu::f16_to_f32(x.x);
#endif
}

template <class T> struct As {};  // picks an overload by a type that no argument has

ARCH_FN float round_to(As<float>, float x) { return x; }
ARCH_FN bf16 round_to(As<bf16>, float x) {
#ifdef __CUDACC__
  u16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return {y};
#else
  return {emu::f32_to_bf16(x)};
#endif
}
ARCH_FN f16 round_to(As<f16>, float x) {
#ifdef __CUDACC__
  u16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return {y};
#else
  return {emu::f32_to_f16(x)};
#endif
}
template <class T> ARCH_FN T from_f32(float x) { return round_to(As<T>{}, x); }

// Two values as one register of two halves, the first in the low bits: an operand of mma.
template <class T> ARCH_FN u32 pack2(float low, float high) {
  return static_cast<u32>(from_f32<T>(low).x) | static_cast<u32>(from_f32<T>(high).x) << 16;
}
template <class T> ARCH_FN float low2(u32 v) { return to_f32(T{static_cast<u16>(v & 0xffffu)}); }
template <class T> ARCH_FN float high2(u32 v) { return to_f32(T{static_cast<u16>(v >> 16)}); }

// 2^x, to about 2 ulp.
ARCH_FN float ex2(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

// sin and cos of pi x: exact reduction, so that no slow path for large arguments takes local memory.
ARCH_FN void sincospi(double x, double* s, double* c) {
#ifdef __CUDACC__
  ::sincospi(x, s, c);
#else
  *s = sin(M_PI * x);
  *c = cos(M_PI * x);
#endif
}

// ---- shared memory addresses and asynchronous copies --------------------------------------------------------------

// A pointer into shared memory as the 32-bit address that the instructions below take.
ARCH_FN u32 smem_u32(const void* p) {
#ifdef __CUDACC__
  return static_cast<u32>(__cvta_generic_to_shared(p));
#else
  return emu::smem_u32(p);
#endif
}

// Copies 16 bytes from global to shared memory; zeros when `keep` is false (the source is then not read).
ARCH_FN void cp_async16(u32 to, const void* from, bool keep) {
#ifdef __CUDACC__
  const int bytes = keep ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
#else
  emu::cp_async(to, from, 16, keep ? 16 : 0);
#endif
}
// Ends a group of copies.
ARCH_FN void cp_async_commit() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  emu::cp_commit();
#endif
}
// Waits until at most N of this thread's groups are under way. A __syncthreads() must follow before others read.
template <int N> ARCH_FN void cp_async_wait() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#else
  emu::cp_wait(N);
#endif
}

// ---- tensor cores: 16-bit operands, float accumulators ------------------------------------------------------------
//
// Fragments of mma.m16n8k16 with g = lane / 4, t = lane % 4: a0 (g, 2t) a1 (g + 8, 2t) a2 (g, 2t + 8) a3 (g + 8, 2t + 8),
// pairs along k; b0 (k = 2t, n = g) b1 (k = 2t + 8, n = g); c0, c1 (g, 2t .. 2t + 1), c2, c3 (g + 8, ..).
// The loops are unrolled instructions on the device and one collective on the host.

#ifdef __CUDACC__
ARCH_FN void ldmatrix4(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
ARCH_FN void ldmatrix4_trans(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
ARCH_FN void mma_m16n8k16(As<bf16>, float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
ARCH_FN void mma_m16n8k16(As<f16>, float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
template <class T> struct HalfKind;
template <> struct HalfKind<bf16> { static constexpr emu::Half kind = emu::Half::Bf16; };
template <> struct HalfKind<f16> { static constexpr emu::Half kind = emu::Half::F16; };
#endif

// Four 8x8 tiles of halves for each i: lane l gives the address of row l % 8 of tile l / 8, 16 bytes.
template <int N> ARCH_FN void ldmatrix(u32 (&r)[N][4], const u32 (&address)[N] ARCH_LOC) {
#ifdef __CUDACC__
#pragma unroll
  for (int i = 0; i < N; ++i) ldmatrix4(r[i], address[i]);
#else
  emu::ldmatrix(&r[0][0], address, N, false, file_, line_);
#endif
}
// The same, each tile transposed.
template <int N> ARCH_FN void ldmatrix_trans(u32 (&r)[N][4], const u32 (&address)[N] ARCH_LOC) {
#ifdef __CUDACC__
#pragma unroll
  for (int i = 0; i < N; ++i) ldmatrix4_trans(r[i], address[i]);
#else
  emu::ldmatrix(&r[0][0], address, N, true, file_, line_);
#endif
}
// d[i][j] (16 x 8) += a[i] (16 x 16) b[j] (16 x 8).
template <class T, int I, int J>
ARCH_FN void mma(float (&d)[I][J][4], const u32 (&a)[I][4], const u32 (&b)[J][2] ARCH_LOC) {
#ifdef __CUDACC__
#pragma unroll
  for (int i = 0; i < I; ++i)
#pragma unroll
    for (int j = 0; j < J; ++j) mma_m16n8k16(As<T>{}, d[i][j], a[i], b[j]);
#else
  emu::mma(&d[0][0][0], &a[0][0], &b[0][0], I, J, HalfKind<T>::kind, file_, line_);
#endif
}
// The same with both operands fetched by ldmatrix (b untransposed: rows of b in memory are n) in one collective.
template <class T, int I, int J>
ARCH_FN void mma_smem(float (&d)[I][J][4], const u32 (&a_at)[I], const u32 (&b_at)[J / 2] ARCH_LOC) {
#ifdef __CUDACC__
  u32 a[I][4], b[J / 2][4];
  ldmatrix(a, a_at);
  ldmatrix(b, b_at);
#pragma unroll
  for (int i = 0; i < I; ++i)
#pragma unroll
    for (int j = 0; j < J; ++j) {
      const u32 pair[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
      mma_m16n8k16(As<T>{}, d[i][j], a[i], pair);
    }
#else
  emu::mma_smem(&d[0][0][0], a_at, b_at, I, J, HalfKind<T>::kind, file_, line_);
#endif
}

// A named barrier (1 to 15) for `threads` threads of the block.
ARCH_FN void bar_sync(int id, int threads ARCH_LOC) {
#ifdef __CUDACC__
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
  emu::bar_sync(id, threads, true, file_, line_);
#endif
}

}  // namespace arch
