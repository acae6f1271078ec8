// y = g x, clipped to [-1, 1].
//
// y, x: [len]. One thread an element.
#include "arch.cuh"

namespace {

struct Params {
  int len;
  float gain;
};

ARCH_FN void clip(float* __restrict__ y, const float* __restrict__ x, Params p) {
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= static_cast<u32>(p.len)) return;
  const float v = p.gain * x[i];
  y[i] = v > 1.0f ? 1.0f : v < -1.0f ? -1.0f : v;  // a NaN stays
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) clip_fwd_1_plain_f32(float* y, const float* x, Params p) {
  clip(y, x, p);
}
REGISTER_KERNEL(clip_fwd_1_plain_f32)
