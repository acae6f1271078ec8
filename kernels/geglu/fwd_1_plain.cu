// y = a g Phi(g), where each row of x is [a, g].
//
// y: [rows, c], x: [rows, 2c]. One thread an element of y. Any sizes.
#include "math.cuh"

namespace {

struct Params {
  int rows, c;
};

template <class T> ARCH_FN void geglu(T* __restrict__ y, const T* __restrict__ x, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<size_t>(p.rows) * p.c) return;
  const T* const a = x + i / p.c * 2 * p.c + i % p.c;
  y[i] = arch::from_f32<T>(arch::to_f32(a[0]) * math::gelu(arch::to_f32(a[p.c])));
}

}  // namespace

#define ENTRY(T, dtype)                                       \
  extern "C" __global__ void __launch_bounds__(256)           \
      geglu_fwd_1_plain_##dtype(T* y, const T* x, Params p) { \
    geglu(y, x, p);                                           \
  }                                                           \
  REGISTER_KERNEL(geglu_fwd_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
