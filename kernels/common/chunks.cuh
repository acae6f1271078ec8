// Sums over a long depth for few outputs: the depth is cut into chunks, each of which blocks of their own sum
// (blockIdx.z); then sum/parts.cu adds the chunks' sums in their order.
#pragma once
#include "arch.cuh"

namespace chunks {

// The part of the depth that a block sums.
struct Chunk {
  int first, depth;

  static __device__ __forceinline__ Chunk whole(int depth) { return {0, depth}; }

  // This block's, of chunks of `each`: the last one may be shorter.
  static __device__ __forceinline__ Chunk of_block(int depth, int each) {
    const int first = blockIdx.z * each;
    return {first, min(depth - first, each)};
  }
};

// Where this block's chunk puts its sums, `len` of them.
ARCH_FN float* sums(float* to, size_t len) { return to + blockIdx.z * len; }

}  // namespace chunks
