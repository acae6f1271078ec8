// Blocks of a cluster that read one another's sums, twice from the same place, and the mistakes that such kernels make.
// For sm_90a.
//
// out[block] = sum over the blocks r of its cluster of (r + 1) ((sum of x) + 2 (sum of x^2)), a row of 64 values a block.
#include "arch90.cuh"

namespace {

enum Fault {
  NONE, NO_FIRST_SYNC, NO_SYNC, NO_SYNC_BEFORE_REUSE, NO_LAST_SYNC, RANK_BEYOND, DIVERGENT_SYNC, EXIT_BEFORE_SYNC,
  BARRIER_OF_THE_BLOCK, STATIC_MEMORY
};

constexpr int THREADS = 64, WARPS = THREADS / 32;

// The parts are there: in the first round, in both.
template <int FAULT> ARCH_FN void meet(int round) {
  if (FAULT == NO_FIRST_SYNC && round == 0) return;
  if (FAULT == NO_SYNC && round == 1) return;
  if (FAULT == DIVERGENT_SYNC && threadIdx.x < 32) {
    arch::cluster_sync();
    return;
  }
  if (FAULT == BARRIER_OF_THE_BLOCK && arch::cluster_rank() == 0 && threadIdx.x < 32) {
    arch::bar_sync(1, THREADS);
    return;
  }
  arch::cluster_sync();
}

template <int BLOCKS, int FAULT> ARCH_FN void shares(float* out, const float* x) {
  DYN_SMEM(smem);
  SHARED_ARRAY(float, fixed, WARPS);
  float* const part = FAULT == STATIC_MEMORY ? fixed : reinterpret_cast<float*>(smem);
  const int block = blockIdx.y * gridDim.x + blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const float v = x[block * THREADS + threadIdx.x];
  if (FAULT == EXIT_BEFORE_SYNC && arch::cluster_rank() == 1 && warp == 1) return;
  float all = 0.0f;
  for (int round = 0; round < 2; ++round) {
    float sum = round == 0 ? v : 2.0f * v * v;
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (lane == 0) part[warp] = sum;
    meet<FAULT>(round);
    for (int r = 0; r < BLOCKS; ++r) {
      const int rank = FAULT == RANK_BEYOND ? r + 1 : r;
      for (int w = 0; w < WARPS; ++w) all += static_cast<float>(r + 1) * arch::cluster_load(part + w, rank);
    }
    if (FAULT == (round == 0 ? NO_SYNC_BEFORE_REUSE : NO_LAST_SYNC)) continue;
    arch::cluster_sync();  // they were read
  }
  if (threadIdx.x == 0) out[block] = all;
}

}  // namespace

#define KERNEL(name, BLOCKS, FAULT)                                                                                 \
  extern "C" __global__ void __cluster_dims__(BLOCKS, 1, 1) __launch_bounds__(64) name(float* out, const float* x) {\
    shares<BLOCKS, FAULT>(out, x);                                                                                  \
  }                                                                                                                 \
  REGISTER_CLUSTER(name, BLOCKS)
KERNEL(cluster_of_2, 2, NONE)
KERNEL(cluster_of_4, 4, NONE)
KERNEL(cluster_of_8, 8, NONE)
KERNEL(cluster_no_first_sync, 4, NO_FIRST_SYNC)
KERNEL(cluster_no_sync, 4, NO_SYNC)
KERNEL(cluster_no_sync_before_reuse, 4, NO_SYNC_BEFORE_REUSE)
KERNEL(cluster_no_last_sync, 4, NO_LAST_SYNC)
KERNEL(cluster_rank_beyond, 4, RANK_BEYOND)
KERNEL(cluster_divergent_sync, 4, DIVERGENT_SYNC)
KERNEL(cluster_exit_before_sync, 4, EXIT_BEFORE_SYNC)
KERNEL(cluster_barrier_of_the_block, 4, BARRIER_OF_THE_BLOCK)
KERNEL(cluster_static_memory, 4, STATIC_MEMORY)
