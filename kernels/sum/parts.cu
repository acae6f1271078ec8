// y = the sum over chunks of parts, in their order: what ends a sum over a long depth (chunks.cuh).
//
// y: [len], parts: [count, len], both in float whatever the activations are. One thread an element of y.
#include "arch.cuh"

namespace {

struct Params {
  int len, count;
};

ARCH_FN void add(float* __restrict__ y, const float* __restrict__ parts, Params p) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= p.len) return;
  float sum = parts[i];
  for (int chunk = 1; chunk < p.count; ++chunk) sum += parts[static_cast<size_t>(chunk) * p.len + i];
  y[i] = sum;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) sum_parts_f32(float* y, const float* parts, Params p) {
  add(y, parts, p);
}
REGISTER_KERNEL(sum_parts_f32)
