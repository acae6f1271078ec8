// dw = dy^T x
//
// dw: [m, k] in float, x: [rows, k], dy: [rows, m]. One thread an element of dw, neighbours along k. Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int rows, k, m;
};

template <class T>
ARCH_FN void wgrad(float* __restrict__ dw, const T* __restrict__ x, const T* __restrict__ dy, const Params& p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<size_t>(p.m) * p.k) return;
  const T *left = dy + i / p.k, *right = x + i % p.k;  // each row's
  float sum = 0.0f;
  for (int row = 0; row < p.rows; ++row, left += p.m, right += p.k) sum += arch::to_f32(*left) * arch::to_f32(*right);
  dw[i] = sum;
}

}  // namespace

#define ENTRY(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256)                                                                \
      linear_wgrad_1_plain_##dtype(float* dw, const T* x, const T* dy, Params p) {                                 \
    wgrad(dw, x, dy, p);                                                                                           \
  }                                                                                                                \
  REGISTER_KERNEL(linear_wgrad_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
