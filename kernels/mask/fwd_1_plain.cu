// y[n, p, c] = x[n, p, c] m[p]: one weight a pixel for all samples and channels.
//
// y, x: [n, pixels, c], m: [pixels]. One thread an element. Its own VJP.
#include "arch.cuh"

namespace {

struct Params {
  int len, pixels, c;
};

ARCH_FN void mask(float* __restrict__ y, const float* __restrict__ x, const float* __restrict__ m, Params p) {
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < static_cast<u32>(p.len)) y[i] = x[i] * m[i / p.c % p.pixels];
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    mask_fwd_1_plain_f32(float* y, const float* x, const float* m, Params p) {
  mask(y, x, m, p);
}
REGISTER_KERNEL(mask_fwd_1_plain_f32)
