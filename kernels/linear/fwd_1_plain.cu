// y = x w^T + bias + residual
//
// y, residual: [rows, m], x: [rows, k], w: [m, k], bias: [m]. One thread an element of y. Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int rows, k, m;
};

template <class T>
ARCH_FN void forward(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w,
                     const float* __restrict__ bias, const T* __restrict__ residual, const Params& p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<size_t>(p.rows) * p.m) return;
  const size_t j = i % p.m;
  const T* const from = x + i / p.m * p.k;  // (k) this row
  const T* const weights = w + j * p.k;     // (k)
  float sum = 0.0f;
  for (int l = 0; l < p.k; ++l) sum += arch::to_f32(from[l]) * arch::to_f32(weights[l]);
  if (bias) sum += bias[j];
  if (residual) sum += arch::to_f32(residual[i]);
  y[i] = arch::from_f32<T>(sum);
}

}  // namespace

#define ENTRY(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256)                                                                \
      linear_fwd_1_plain_##dtype(T* y, const T* x, const T* w, const float* bias, const T* residual, Params p) {   \
    forward(y, x, w, bias, residual, p);                                                                           \
  }                                                                                                                \
  REGISTER_KERNEL(linear_fwd_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
