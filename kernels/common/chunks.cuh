// Sums over a long depth for few outputs: the depth is cut into chunks, each of which blocks of their own sum
// (blockIdx.z); then sum/parts.cu adds the chunks' sums in their order.
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

}  // namespace chunks
