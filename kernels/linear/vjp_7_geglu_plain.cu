// dx = [dh gelu(g), dh a gelu'(g)], dh = dy w: the backward pass of a linear map and of the GEGLU before it.
//
// dx, x: [rows, 2k], rows of [da, dg] and of [a, g], dy: [rows, m], w: [m, k]. dh, [rows, k], is never in memory, nor
// rounded. One thread an element of it, neighbours along k. Any sizes.
#include "linear.cuh"
#include "math.cuh"

namespace {

template <class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ x,
                 const linear::Params& p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<size_t>(p.rows) * p.k) return;
  const size_t at = i / p.k * 2 * p.k + i % p.k;
  float a = arch::to_f32(x[at]), g = arch::to_f32(x[at + p.k]);
  math::geglu_vjp(a, g, linear::element(i, dy, w, p));
  dx[at] = arch::from_f32<T>(a);
  dx[at + p.k] = arch::from_f32<T>(g);
}

}  // namespace

#define ENTRY(T, dtype)                                                                           \
  extern "C" __global__ void __launch_bounds__(256)                                               \
      linear_vjp_7_geglu_plain_##dtype(T* dx, const T* dy, const T* w, const T* x, linear::Params p) { \
    vjp(dx, dy, w, x, p);                                                                         \
  }                                                                                               \
  REGISTER_KERNEL(linear_vjp_7_geglu_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
