// y = a + b, element by element.
//
// y, a, b: [len]. One thread for 16 bytes of y: four or eight elements in one load and one store each.
// Wants samples of whole 16 bytes, so that every sample is aligned.
#include "vector.cuh"

namespace {

struct Params {
  int packs;
};

template <class T> ARCH_FN void add(T* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b, Params p) {
  constexpr int N = vec::WIDTH<T>;
  const u32 pack = blockIdx.x * blockDim.x + threadIdx.x;
  if (pack >= static_cast<u32>(p.packs)) return;
  const size_t at = static_cast<size_t>(pack) * N;
  float u[N], v[N];
  vec::load(u, a + at);
  vec::load(v, b + at);
#pragma unroll
  for (int i = 0; i < N; ++i) u[i] += v[i];
  vec::store(y + at, u);
}

}  // namespace

#define ENTRY(T, dtype)                                                  \
  extern "C" __global__ void __launch_bounds__(256)                      \
      add_fwd_2_vector_##dtype(T* y, const T* a, const T* b, Params p) { \
    add(y, a, b, p);                                                     \
  }                                                                      \
  REGISTER_KERNEL(add_fwd_2_vector_##dtype)
FOR_EACH_DTYPE(ENTRY)
