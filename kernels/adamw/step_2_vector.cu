// One step of AdamW, in place: g' = scale g, m = b1 m + (1 - b1) g', v = b2 v + (1 - b2) g'^2,
// w = decay w - step m / (sqrt(v) rsqrt + eps), and w rounded to copy where that is not null.
//
// w, m, v, g: f32 [4 packs]; copy: [4 packs]; coefficients: f32 [4], scale, decay, step and rsqrt.
// One thread for four elements.
#include "vector.cuh"

namespace {

struct Params {
  int packs;
  float beta1, rest1, beta2, rest2, eps;  // a rest is 1 - beta
};

template <class T>
ARCH_FN void adamw(float* __restrict__ w, float* __restrict__ m, float* __restrict__ v, T* __restrict__ copy,
                   const float* __restrict__ g, const float* __restrict__ coefficients, Params p) {
  constexpr int N = 4;
  const size_t pack = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x, at = N * pack;
  if (pack >= static_cast<size_t>(p.packs)) return;
  const float scale = coefficients[0], decay = coefficients[1], step = coefficients[2], rsqrt = coefficients[3];
  float weight[N], mean[N], square[N], gradient[N];
  vec::load(weight, w + at);
  vec::load(mean, m + at);
  vec::load(square, v + at);
  vec::load(gradient, g + at);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    gradient[i] *= scale;
    mean[i] = p.beta1 * mean[i] + p.rest1 * gradient[i];
    square[i] = p.beta2 * square[i] + p.rest2 * gradient[i] * gradient[i];
    weight[i] = decay * weight[i] - step * mean[i] / (sqrtf(square[i]) * rsqrt + p.eps);
  }
  vec::store(m + at, mean);
  vec::store(v + at, square);
  vec::store(w + at, weight);
  if (copy) {
    Pack<T, N> rounded;
#pragma unroll
    for (int i = 0; i < N; ++i) rounded.v[i] = arch::from_f32<T>(weight[i]);
    *reinterpret_cast<Pack<T, N>*>(copy + at) = rounded;
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                           \
      adamw_step_2_vector_##dtype(float* w, float* m, float* v, T* copy, const float* g,      \
          const float* coefficients, Params p) {                                              \
    adamw(w, m, v, copy, g, coefficients, p);                                                 \
  }                                                                                           \
  REGISTER_KERNEL(adamw_step_2_vector_##dtype)
FOR_EACH_DTYPE(ENTRY)
