// A ring of stages in shared memory (sm_90a), which some threads fill while others use what has arrived. Each stage has
// two mbarriers: that it has been filled, and that it is no longer in use.
#pragma once
#include "arch90.cuh"

namespace ring90 {

// By a warp.
ARCH_FN void announce(u32 barrier) {
  __syncwarp();  // it is true of all lanes
  if (threadIdx.x % 32 == 0) arch::mbar_arrive(barrier);
}

template <int STAGES_, int BYTES> struct Ring {
  static constexpr int STAGES = STAGES_;
  static_assert(BYTES % 1024 == 0, "the swizzle counts from there");
  static constexpr int SIZE = STAGES * (BYTES + 16);
  u32 start;

  // Of the i-th filling.
  __device__ __forceinline__ u32 stage(int i) const { return start + i % STAGES * BYTES; }
  __device__ __forceinline__ u32 full(int i) const { return start + STAGES * BYTES + i % STAGES * 16; }
  __device__ __forceinline__ u32 empty(int i) const { return full(i) + 8; }

  // By one thread, before a __syncthreads: how many arrivals fill a stage, and how many release it.
  __device__ __forceinline__ void init(int fillers, int users) const {
    for (int i = 0; i < STAGES; ++i) {
      arch::mbar_init(full(i), fillers);
      arch::mbar_init(empty(i), users);
    }
    arch::fence_mbar_init();
  }

  // Until the stage may be filled for the i-th time.
  __device__ __forceinline__ void await_empty(int i) const { arch::mbar_wait(empty(i), (i / STAGES + 1) % 2); }
  // Until it has been.
  __device__ __forceinline__ void await(int i) const { arch::mbar_wait(full(i), i / STAGES % 2); }
  // This warp has done with it.
  __device__ __forceinline__ void release(int i) const { announce(empty(i)); }
};

}  // namespace ring90
