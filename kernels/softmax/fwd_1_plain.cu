// y_i = exp(x_i - max x) / sum over j of exp(x_j - max x), for each row.
//
// x, y: [rows, c]. One warp a row, which is read three times. Any sizes.
#include "reduce.cuh"

namespace {

struct Params {
  int rows, c;
};

template <class T> ARCH_FN void softmax(T* __restrict__ y, const T* __restrict__ x, Params p) {
  const int lane = threadIdx.x % reduce::WARP;
  const size_t row = static_cast<size_t>(blockIdx.x) * (blockDim.x / reduce::WARP) + threadIdx.x / reduce::WARP;
  if (row >= static_cast<size_t>(p.rows)) return;
  x += row * p.c;
  y += row * p.c;

  float most = arch::to_f32(x[0]);
  for (int i = lane; i < p.c; i += reduce::WARP) most = fmaxf(most, arch::to_f32(x[i]));
  most = reduce::warp_max(most);
  float total = 0.0f;
  for (int i = lane; i < p.c; i += reduce::WARP) total += expf(arch::to_f32(x[i]) - most);
  total = reduce::warp_sum(total);
  for (int i = lane; i < p.c; i += reduce::WARP) y[i] = arch::from_f32<T>(expf(arch::to_f32(x[i]) - most) / total);
}

}  // namespace

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(128) softmax_fwd_1_plain_##dtype(T* y, const T* x, Params p) {        \
    softmax(y, x, p);                                                                                                \
  }                                                                                                                  \
  REGISTER_KERNEL(softmax_fwd_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
