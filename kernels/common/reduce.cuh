// Sums and maxima over a warp or a block, in a fixed order: the same bits whatever the schedule.
#pragma once
#include "arch.cuh"

namespace reduce {

static constexpr int WARP = 32;
static constexpr int MAX_WARPS = 32;

template <class V> ARCH_FN V warp_sum(V v) {
#pragma unroll
  for (int offset = WARP / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
  return v;
}

ARCH_FN float warp_max(float v) {
#pragma unroll
  for (int offset = WARP / 2; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
  return v;
}

// The sum over the block, in every thread. `part` holds MAX_WARPS values in shared memory; the block's size is a
// multiple of 32.
template <class V> ARCH_FN V block_sum(V v, V* part) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  v = warp_sum(v);
  __syncthreads();  // the last call's readers are done with part
  if (lane == 0) part[warp] = v;
  __syncthreads();
  V sum = part[0];
  for (int i = 1; i < warps; ++i) sum += part[i];
  return sum;
}

}  // namespace reduce
