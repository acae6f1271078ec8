// average += (1 - d) (w - average), in place.
//
// average, w: f32 [len]; coefficients: f32 [1], 1 - d. One thread an element. Any length.
#include "arch.cuh"

namespace {

struct Params {
  int len;
};

ARCH_FN void ema(float* __restrict__ average, const float* __restrict__ w, const float* __restrict__ coefficients,
                 Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < static_cast<size_t>(p.len)) average[i] += coefficients[0] * (w[i] - average[i]);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    ema_update_1_plain_f32(float* average, const float* w, const float* coefficients, Params p) {
  ema(average, w, coefficients, p);
}
REGISTER_KERNEL(ema_update_1_plain_f32)
