// dx_i = y_i (dy_i - sum over j of dy_j y_j), for each row.
//
// dx, dy, y: [rows, c]. One warp a row, which is read twice. Any sizes.
#include "reduce.cuh"

namespace {

struct Params {
  int rows, c;
};

template <class T>
ARCH_FN void softmax_vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ y, Params p) {
  const int lane = threadIdx.x % reduce::WARP;
  const size_t row = static_cast<size_t>(blockIdx.x) * (blockDim.x / reduce::WARP) + threadIdx.x / reduce::WARP;
  if (row >= static_cast<size_t>(p.rows)) return;
  dx += row * p.c;
  dy += row * p.c;
  y += row * p.c;

  float dot = 0.0f;
  for (int i = lane; i < p.c; i += reduce::WARP) dot += arch::to_f32(dy[i]) * arch::to_f32(y[i]);
  dot = reduce::warp_sum(dot);
  for (int i = lane; i < p.c; i += reduce::WARP) {
    dx[i] = arch::from_f32<T>(arch::to_f32(y[i]) * (arch::to_f32(dy[i]) - dot));
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(128)                                                                  \
      softmax_vjp_1_plain_##dtype(T* dx, const T* dy, const T* y, Params p) {                                        \
    softmax_vjp(dx, dy, y, p);                                                                                       \
  }                                                                                                                  \
  REGISTER_KERNEL(softmax_vjp_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
