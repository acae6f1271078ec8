// average += (1 - d) (w - average), in place.
//
// average, w: f32 [4 packs]; coefficients: f32 [1], 1 - d. One thread for four elements.
#include "vector.cuh"

namespace {

struct Params {
  int packs;
};

ARCH_FN void ema(float* __restrict__ average, const float* __restrict__ w, const float* __restrict__ coefficients,
                 Params p) {
  constexpr int N = 4;
  const size_t pack = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x, at = N * pack;
  if (pack >= static_cast<size_t>(p.packs)) return;
  const float rest = coefficients[0];
  float old[N], now[N];
  vec::load(old, average + at);
  vec::load(now, w + at);
#pragma unroll
  for (int i = 0; i < N; ++i) old[i] += rest * (now[i] - old[i]);
  vec::store(average + at, old);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    ema_update_2_vector_f32(float* average, const float* w, const float* coefficients, Params p) {
  ema(average, w, coefficients, p);
}
REGISTER_KERNEL(ema_update_2_vector_f32)
