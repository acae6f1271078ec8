// y[n, i] = x[n, i] + scale normal(address[n], i), or without x: the standard normal field at each sample's address.
//
// y, x: [samples, size], x may be absent; addresses: [samples, 5]. One thread the four elements that one Philox counter
// gives; blockIdx.y is the sample.
#include "philox.cuh"

namespace {

struct Params {
  int size;
  float scale;
};

ARCH_FN void noise(float* __restrict__ y, const int* __restrict__ addresses, const float* __restrict__ x, Params p) {
  const size_t sample = blockIdx.y;
  const u32 block = blockIdx.x * blockDim.x + threadIdx.x;
  const size_t first = static_cast<size_t>(block) * philox::BLOCK;
  if (first >= static_cast<size_t>(p.size)) return;
  float normal[philox::BLOCK];
  philox::normals(normal, addresses + sample * philox::WORDS, block);
#pragma unroll
  for (int e = 0; e < philox::BLOCK; ++e) {
    const size_t i = first + e;
    if (i >= static_cast<size_t>(p.size)) continue;
    const size_t at = sample * p.size + i;
    y[at] = (x ? x[at] : 0.0f) + p.scale * normal[e];
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    noise_fwd_1_plain_f32(float* y, const int* addresses, const float* x, Params p) {
  noise(y, addresses, x, p);
}
REGISTER_KERNEL(noise_fwd_1_plain_f32)
