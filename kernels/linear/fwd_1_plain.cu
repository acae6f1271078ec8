// y = x w^T + bias + residual, for one map of x or three
//
// y, residual: [rows, m], x: [rows, k], w: [m, k], bias: [m]; a layer of the grid for each map, a residual for one only.
// One thread an element of y. Any sizes.
#include "linear.cuh"

namespace {

template <class T>
ARCH_FN void forward(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w,
                     const float* __restrict__ bias, const T* __restrict__ residual, const linear::Params& p) {
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

#define ENTRY(T, dtype)                                                                                           \
  extern "C" __global__ void __launch_bounds__(256)                                                               \
      linear_fwd_1_plain_##dtype(T* y, T* y_2, T* y_3, const T* x, const T* w, const T* w_2, const T* w_3,        \
                                 const float* bias, const float* bias_2, const float* bias_3, const T* residual,  \
                                 linear::Params p) {                                                              \
    forward(linear::of_block(y, y_2, y_3), x, linear::of_block(w, w_2, w_3),                                      \
            linear::of_block(bias, bias_2, bias_3), residual, p);                                                 \
  }                                                                                                               \
  REGISTER_KERNEL(linear_fwd_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
