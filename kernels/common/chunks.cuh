// Sums over a long depth for few outputs: the depth is cut into chunks, each of which blocks of their own sum
// (blockIdx.z); then the chunks' sums are added in their order.
#pragma once
#include "arch.cuh"

namespace chunks {

// The part of the depth that this block sums.
struct Chunk {
  int first, depth;

  __device__ __forceinline__ Chunk(int of_all, int each) : first(blockIdx.z * each), depth(of_all - first) {
    if (depth > each) depth = each;
  }
};

// Where this block's chunk puts its sums, `len` of them.
ARCH_FN float* sums(float* to, size_t len) { return to + blockIdx.z * len; }

// y (len) = the sum of parts (count, len). One thread an element.
ARCH_FN void add(float* __restrict__ y, const float* __restrict__ parts, int len, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= len) return;
  float sum = parts[i];
  for (int chunk = 1; chunk < count; ++chunk) sum += parts[static_cast<size_t>(chunk) * len + i];
  y[i] = sum;
}

}  // namespace chunks
