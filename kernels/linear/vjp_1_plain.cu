// dx = dy w, or the sum of three such products
//
// dx: [rows, k], dy: [rows, m], w: [m, k]. One thread an element of dx, neighbours along k. Any sizes.
#include "linear.cuh"

namespace {

template <class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ dy_2, const T* __restrict__ dy_3,
                 const T* __restrict__ w, const T* __restrict__ w_2, const T* __restrict__ w_3,
                 const linear::Parts& parts) {
  const linear::Params& p = parts.each;
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<size_t>(p.rows) * p.k) return;
  float sum = 0.0f;
  for (int turn = 0; turn < parts.count; ++turn) {
    sum += linear::element(i, linear::part(turn, dy, dy_2, dy_3), linear::part(turn, w, w_2, w_3), p);
  }
  dx[i] = arch::from_f32<T>(sum);
}

}  // namespace

#define ENTRY(T, dtype)                                                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                                           \
      linear_vjp_1_plain_##dtype(T* dx, const T* dy, const T* dy_2, const T* dy_3, const T* w, const T* w_2,  \
                                 const T* w_3, linear::Parts p) {                                             \
    vjp(dx, dy, dy_2, dy_3, w, w_2, w_3, p);                                                                  \
  }                                                                                                           \
  REGISTER_KERNEL(linear_vjp_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
