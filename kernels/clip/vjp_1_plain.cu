// dx = g dy where g x lies in [-1, 1], else 0.
//
// dx, dy, x: [len]. One thread an element.
#include "arch.cuh"

namespace {

struct Params {
  int len;
  float gain;
};

ARCH_FN void clip(float* __restrict__ dx, const float* __restrict__ dy, const float* __restrict__ x, Params p) {
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= static_cast<u32>(p.len)) return;
  const float v = p.gain * x[i];
  dx[i] = v > 1.0f || v < -1.0f ? 0.0f : p.gain * dy[i];
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    clip_vjp_1_plain_f32(float* dx, const float* dy, const float* x, Params p) {
  clip(dx, dy, x, p);
}
REGISTER_KERNEL(clip_vjp_1_plain_f32)
