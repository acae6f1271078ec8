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

// How many values, their mean, and the sum of their squared deviations from it.
struct Moments {
  float count, mean, squares;
};

// Chan et al.: the moments of two parts together.
ARCH_FN Moments join(Moments a, Moments b) {
  const float count = a.count + b.count, share = count > 0.0f ? b.count / count : 0.0f, delta = b.mean - a.mean;
  return {count, a.mean + delta * share, a.squares + b.squares + delta * delta * a.count * share};
}

// The moments of the whole warp, in lane 0.
ARCH_FN Moments warp_join(Moments m) {
#pragma unroll
  for (int offset = WARP / 2; offset > 0; offset /= 2) {
    m = join(m, {__shfl_down_sync(0xffffffffu, m.count, offset), __shfl_down_sync(0xffffffffu, m.mean, offset),
                 __shfl_down_sync(0xffffffffu, m.squares, offset)});
  }
  return m;
}

// The moments of the whole block, in every thread. Once a block: `part` holds MAX_WARPS values in shared memory.
ARCH_FN Moments block_join(Moments m, Moments* part) {
  m = warp_join(m);
  if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = m;
  __syncthreads();  // part is complete
  m = part[0];
  for (int i = 1; i < static_cast<int>(blockDim.x) / WARP; ++i) m = join(m, part[i]);
  return m;
}

}  // namespace reduce
