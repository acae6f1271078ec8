// Arithmetic, bit, conversion and atomic intrinsics of the device, as the host computes them. The approximate ones
// are the exact library functions: tests allow for the device's error.
#pragma once
#include "emu.h"

// ---- bits ---------------------------------------------------------------------------------------------------------

inline unsigned __float_as_uint(float x) { return emu::from_bits<unsigned>(emu::to_bits(x)); }
inline float __uint_as_float(unsigned x) { return emu::from_bits<float>(x); }
inline int __float_as_int(float x) { return emu::from_bits<int>(emu::to_bits(x)); }
inline float __int_as_float(int x) { return emu::from_bits<float>(emu::to_bits(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; ++i) y |= (x >> i & 1u) << (31 - i);
  return y;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

// ---- arithmetic ---------------------------------------------------------------------------------------------------

inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / sqrt(static_cast<double>(x))); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline int __float2int_rn(float x) { return static_cast<int>(rintf(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }

// ---- loads and stores with a cache hint ---------------------------------------------------------------------------

template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline void __stcg(T* p, T value) { *p = value; }
template <class T> inline void __stcs(T* p, T value) { *p = value; }

// ---- 16-bit floats: to nearest even, NaN kept ---------------------------------------------------------------------

namespace emu {

inline u16 f32_to_bf16(float x) {
  const u32 bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // the device's NaN
  return static_cast<u16>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
inline float bf16_to_f32(u16 x) { return __uint_as_float(static_cast<u32>(x) << 16); }

inline u16 f32_to_f16(float x) {
  const u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  u32 half;
  if (size > 0x7f800000u) return 0x7fff;
  if (size >= 0x477ff000u) {  // 65520, the first value that rounds to infinity
    half = 0x7c00u;
  } else if (size < 0x38800000u) {  // below 2^-14: adding 0.5 leaves the denormal's bits at the bottom, rounded
    half = __float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000u;
  } else {
    half = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
  }
  return static_cast<u16>(sign | half);
}
inline float f16_to_f32(u16 x) {
  // The half's bits in a float's places are 2^112 too small, denormals included; infinity and NaN come out at 2^16.
  const float size = __uint_as_float((x & 0x7fffu) << 13) * 0x1p112f;
  const u32 special = size >= 65536.0f ? 0x7f800000u : 0u;
  return __uint_as_float(__float_as_uint(size) | special | static_cast<u32>(x & 0x8000u) << 16);
}

// ---- atomics: blocks may run on several OS threads ----------------------------------------------------------------

template <class T, class F> inline T atomic_update(T* p, F next) {
  T old, wanted;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do {
    wanted = next(old);
  } while (!__atomic_compare_exchange(p, &old, &wanted, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}
template <class T> using Same = std::common_type_t<T>;  // takes part in no deduction

}  // namespace emu

template <class T> inline T atomicAdd(T* p, emu::Same<T> v) {
  return emu::atomic_update(p, [=](T old) { return static_cast<T>(old + v); });
}
template <class T> inline T atomicSub(T* p, emu::Same<T> v) {
  return emu::atomic_update(p, [=](T old) { return static_cast<T>(old - v); });
}
template <class T> inline T atomicMax(T* p, emu::Same<T> v) {
  return emu::atomic_update(p, [=](T old) { return old > v ? old : v; });
}
template <class T> inline T atomicMin(T* p, emu::Same<T> v) {
  return emu::atomic_update(p, [=](T old) { return old < v ? old : v; });
}
template <class T> inline T atomicAnd(T* p, emu::Same<T> v) {
  return emu::atomic_update(p, [=](T old) { return old & v; });
}
template <class T> inline T atomicOr(T* p, emu::Same<T> v) {
  return emu::atomic_update(p, [=](T old) { return old | v; });
}
template <class T> inline T atomicXor(T* p, emu::Same<T> v) {
  return emu::atomic_update(p, [=](T old) { return old ^ v; });
}
template <class T> inline T atomicExch(T* p, emu::Same<T> v) {
  return emu::atomic_update(p, [=](T) { return v; });
}
template <class T> inline T atomicCAS(T* p, emu::Same<T> compare, emu::Same<T> v) {
  return emu::atomic_update(p, [=](T old) { return old == compare ? v : old; });
}
