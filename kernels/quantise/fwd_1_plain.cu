// y = o + q round((x - o) / q), halves to even, with a step q and an origin o of each element's own.
//
// y, x: [samples, size], q, o: [size]. One thread an element.
#include "arch.cuh"

namespace {

struct Params {
  int len, size;
};

ARCH_FN void quantise(float* __restrict__ y, const float* __restrict__ x, const float* __restrict__ q,
                      const float* __restrict__ o, Params p) {
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= static_cast<u32>(p.len)) return;
  const float step = q[i % p.size], origin = o[i % p.size];
  y[i] = origin + step * rintf((x[i] - origin) / step);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    quantise_fwd_1_plain_f32(float* y, const float* x, const float* q, const float* o, Params p) {
  quantise(y, x, q, o, p);
}
REGISTER_KERNEL(quantise_fwd_1_plain_f32)
