// da = dy g Phi(g), dg = dy a (Phi(g) + g phi(g)), where each row of x is [a, g] and of dx is [da, dg].
//
// dx, x: [rows, 2c], dy: [rows, c]. One thread an element of dy. Any sizes.
#include "math.cuh"

namespace {

struct Params {
  int rows, c;
};

template <class T> ARCH_FN void geglu(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<size_t>(p.rows) * p.c) return;
  const size_t at = i / p.c * 2 * p.c + i % p.c;
  float a = arch::to_f32(x[at]), g = arch::to_f32(x[at + p.c]);
  math::geglu_vjp(a, g, arch::to_f32(dy[i]));
  dx[at] = arch::from_f32<T>(a);
  dx[at + p.c] = arch::from_f32<T>(g);
}

}  // namespace

#define ENTRY(T, dtype)                                                     \
  extern "C" __global__ void __launch_bounds__(256)                         \
      geglu_vjp_1_plain_##dtype(T* dx, const T* dy, const T* x, Params p) { \
    geglu(dx, dy, x, p);                                                    \
  }                                                                         \
  REGISTER_KERNEL(geglu_vjp_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
