// da = dy g Phi(g), dg = dy a (Phi(g) + g phi(g)), where each row of x is [a, g] and of dx is [da, dg].
//
// dx, x: [rows, 2c], dy: [rows, c]. One thread for 16 bytes of dy; Phi is evaluated once for both results.
// Wants c to be whole 16 bytes.
#include "math.cuh"
#include "vector.cuh"

namespace {

struct Params {
  int packs, c;
};

template <class T> ARCH_FN void geglu(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x, Params p) {
  constexpr int N = vec::WIDTH<T>;
  const u32 pack = blockIdx.x * blockDim.x + threadIdx.x, packs = p.c / N;  // of one row
  if (pack >= static_cast<u32>(p.packs)) return;
  const size_t at = (static_cast<size_t>(pack) + pack / packs * packs) * N;
  float a[N], g[N], d[N];
  vec::load(a, x + at);
  vec::load(g, x + at + p.c);
  vec::load(d, dy + static_cast<size_t>(pack) * N);
#pragma unroll
  for (int i = 0; i < N; ++i) math::geglu_vjp(a[i], g[i], d[i]);
  vec::store(dx + at, a);
  vec::store(dx + at + p.c, g);
}

}  // namespace

#define ENTRY(T, dtype)                                                      \
  extern "C" __global__ void __launch_bounds__(256)                          \
      geglu_vjp_2_vector_##dtype(T* dx, const T* dy, const T* x, Params p) { \
    geglu(dx, dy, x, p);                                                     \
  }                                                                          \
  REGISTER_KERNEL(geglu_vjp_2_vector_##dtype)
FOR_EACH_DTYPE(ENTRY)
