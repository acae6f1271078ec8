// y = a g Phi(g), where each row of x is [a, g].
//
// y: [rows, c], x: [rows, 2c]. One thread for 16 bytes of y. Wants c to be whole 16 bytes.
#include "math.cuh"
#include "vector.cuh"

namespace {

struct Params {
  int packs, c;
};

template <class T> ARCH_FN void geglu(T* __restrict__ y, const T* __restrict__ x, Params p) {
  constexpr int N = vec::WIDTH<T>;
  const u32 pack = blockIdx.x * blockDim.x + threadIdx.x, packs = p.c / N;  // of one row
  if (pack >= static_cast<u32>(p.packs)) return;
  const T* const from = x + (static_cast<size_t>(pack) + pack / packs * packs) * N;
  float a[N], g[N];
  vec::load(a, from);
  vec::load(g, from + p.c);
#pragma unroll
  for (int i = 0; i < N; ++i) a[i] *= math::gelu(g[i]);
  vec::store(y + static_cast<size_t>(pack) * N, a);
}

}  // namespace

#define ENTRY(T, dtype)                                        \
  extern "C" __global__ void __launch_bounds__(256)            \
      geglu_fwd_2_vector_##dtype(T* y, const T* x, Params p) { \
    geglu(y, x, p);                                            \
  }                                                            \
  REGISTER_KERNEL(geglu_fwd_2_vector_##dtype)
FOR_EACH_DTYPE(ENTRY)
