// One step of AdamW, in place: g' = scale g, m = b1 m + (1 - b1) g', v = b2 v + (1 - b2) g'^2,
// w = decay w - step m / (sqrt(v) rsqrt + eps), and w rounded to copy where that is not null.
//
// w, m, v, g: f32 [len]; copy: [len]; coefficients: f32 [4], scale, decay, step and rsqrt.
// One thread an element. Any length.
#include "arch.cuh"

namespace {

struct Params {
  int len;
  float beta1, rest1, beta2, rest2, eps;  // a rest is 1 - beta
};

template <class T>
ARCH_FN void adamw(float* __restrict__ w, float* __restrict__ m, float* __restrict__ v, T* __restrict__ copy,
                   const float* __restrict__ g, const float* __restrict__ coefficients, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<size_t>(p.len)) return;
  const float scale = coefficients[0], decay = coefficients[1], step = coefficients[2], rsqrt = coefficients[3];
  const float gradient = scale * g[i];
  const float mean = p.beta1 * m[i] + p.rest1 * gradient;
  const float square = p.beta2 * v[i] + p.rest2 * gradient * gradient;
  const float moved = decay * w[i] - step * mean / (sqrtf(square) * rsqrt + p.eps);
  m[i] = mean;
  v[i] = square;
  w[i] = moved;
  if (copy) copy[i] = arch::from_f32<T>(moved);
}

}  // namespace

#define ENTRY(T, dtype)                                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                           \
      adamw_step_1_plain_##dtype(float* w, float* m, float* v, T* copy, const float* g,       \
          const float* coefficients, Params p) {                                              \
    adamw(w, m, v, copy, g, coefficients, p);                                                 \
  }                                                                                           \
  REGISTER_KERNEL(adamw_step_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
