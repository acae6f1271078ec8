// Sums over a block, twice with the same scratch, and the mistakes that such kernels make.
//
// out[block] = (sum of x) + 2 (sum of x^2), one row of 128 values a block. The second half of out is left as it is.
#include "arch.cuh"

namespace {

enum Fault {
  NONE, NO_BARRIER, NO_BARRIER_BEFORE_REUSE, DIVERGENT_BARRIER, EXIT_BEFORE_BARRIER, FULL_MASK_IN_HALF_A_WARP,
  INACTIVE_LANE, DIFFERENT_COLLECTIVES, PAST_DYNAMIC, PAST_STATIC, FAR_PAST_OUTPUT, JUST_PAST_OUTPUT, NULL_POINTER,
  DIVISION_BY_ZERO, DEEP_STACK, BARRIER_OF_TOO_MANY, SPIN, LOST_UPDATES, NO_SYNCWARP, NO_SYNCWARP_BUT_A_SHUFFLE
};

constexpr int THREADS = 128;

template <int FAULT> ARCH_FN float block_sum(float v, float* part) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int offset = 16; offset > 0; offset /= 2) {
    if (FAULT == FULL_MASK_IN_HALF_A_WARP && lane >= 16) continue;
    v += __shfl_xor_sync(0xffffffffu, v, offset);
  }
  if (FAULT != NO_BARRIER_BEFORE_REUSE) __syncthreads();  // the last call's readers are done
  if (lane == 0) part[warp] = v;
  if (FAULT != NO_BARRIER) __syncthreads();
  return part[0] + part[1] + part[2] + part[3];
}

template <int FAULT> ARCH_FN void misbehave(float* out, float* part, int zero) {
  const int lane = threadIdx.x % 32;
  [[maybe_unused]] const int last = gridDim.x * 2;
  if constexpr (FAULT == DIVERGENT_BARRIER) {
    if (threadIdx.x < 64) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  }
  if constexpr (FAULT == INACTIVE_LANE) {
    if (lane < 16) part[lane % 4] = __shfl_sync(0x0000ffffu, 1.0f, 20);
  }
  if constexpr (FAULT == DIFFERENT_COLLECTIVES) {
    if (lane < 16) {
      part[0] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
    } else {
      part[1] = static_cast<float>(__ballot_sync(0xffffffffu, 1));
    }
  }
  if constexpr (FAULT == PAST_DYNAMIC) {
    DYN_SMEM(smem);
    smem[256 + threadIdx.x] = 1;
  }
  if constexpr (FAULT == PAST_STATIC) part[4 + threadIdx.x % 2] = 1.0f;
  if constexpr (FAULT == FAR_PAST_OUTPUT) out[last + 1024] = 1.0f;
  if constexpr (FAULT == JUST_PAST_OUTPUT) out[last] = 1.0f;
  if constexpr (FAULT == NULL_POINTER) *reinterpret_cast<volatile int*>(static_cast<size_t>(zero)) = 1;
  if constexpr (FAULT == DIVISION_BY_ZERO) out[0] = static_cast<float>(7 / zero);
  if constexpr (FAULT == DEEP_STACK) {
    volatile char large[1 << 20];
    for (int i = 0; i < 1 << 20; i += 4096) large[i] = static_cast<char>(zero);
  }
  if constexpr (FAULT == BARRIER_OF_TOO_MANY) arch::bar_sync(1, 256);
  if constexpr (FAULT == SPIN) {
    while (*static_cast<volatile float*>(out) != 77.0f) __nanosleep(100);
  }
  if constexpr (FAULT == LOST_UPDATES) out[gridDim.x + blockIdx.x] += 1.0f;
  if constexpr (FAULT == NO_SYNCWARP || FAULT == NO_SYNCWARP_BUT_A_SHUFFLE) {
    SHARED_ARRAY(int, row, THREADS);
    row[threadIdx.x] = lane;
    int other = lane ^ 1;
    if (FAULT == NO_SYNCWARP_BUT_A_SHUFFLE) other = __shfl_xor_sync(0xffffffffu, lane, 1);
    if (row[threadIdx.x - lane + other] != other) out[gridDim.x + blockIdx.x] = 1.0f;
  }
}

template <int FAULT> ARCH_FN void sums(float* out, const float* x, int zero) {
  SHARED_ARRAY(float, part, 4);
  const float v = x[blockIdx.x * THREADS + threadIdx.x];
  if (FAULT == EXIT_BEFORE_BARRIER && threadIdx.x == 77) return;
  misbehave<FAULT>(out, part, zero);
  const float sum = block_sum<FAULT>(v, part), squares = block_sum<FAULT>(v * v, part);
  if (threadIdx.x == 0) out[blockIdx.x] = sum + 2.0f * squares;
}

}  // namespace

#define KERNEL(name, FAULT)                                                                    \
  extern "C" __global__ void __launch_bounds__(128) name(float* out, const float* x, int zero) { \
    sums<FAULT>(out, x, zero);                                                                 \
  }                                                                                            \
  REGISTER_KERNEL(name)
KERNEL(block_sums, NONE)
KERNEL(block_no_barrier, NO_BARRIER)
KERNEL(block_no_barrier_before_reuse, NO_BARRIER_BEFORE_REUSE)
KERNEL(block_divergent_barrier, DIVERGENT_BARRIER)
KERNEL(block_exit_before_barrier, EXIT_BEFORE_BARRIER)
KERNEL(block_full_mask_in_half_a_warp, FULL_MASK_IN_HALF_A_WARP)
KERNEL(block_inactive_lane, INACTIVE_LANE)
KERNEL(block_different_collectives, DIFFERENT_COLLECTIVES)
KERNEL(block_past_dynamic, PAST_DYNAMIC)
KERNEL(block_past_static, PAST_STATIC)
KERNEL(block_far_past_output, FAR_PAST_OUTPUT)
KERNEL(block_just_past_output, JUST_PAST_OUTPUT)
KERNEL(block_null_pointer, NULL_POINTER)
KERNEL(block_division_by_zero, DIVISION_BY_ZERO)
KERNEL(block_deep_stack, DEEP_STACK)
KERNEL(block_barrier_of_too_many, BARRIER_OF_TOO_MANY)
KERNEL(block_spin, SPIN)
KERNEL(block_lost_updates, LOST_UPDATES)
KERNEL(block_no_syncwarp, NO_SYNCWARP)
KERNEL(block_no_syncwarp_but_a_shuffle, NO_SYNCWARP_BUT_A_SHUFFLE)
