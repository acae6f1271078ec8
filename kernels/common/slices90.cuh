// Group norms by clusters: CLUSTER blocks hold a run of groups of a sample together, whole 16-byte packs of each pixel, and
// each block a slice of the pixels, which stays in shared memory. A thread keeps to one column of packs, and reads no
// pack of the slice but those that it copied. What the blocks sum up they read from one another, in their order.
#pragma once
#include "arch90.cuh"
#include "reduce.cuh"
#include "vector.cuh"

namespace slices {

static constexpr int THREADS = 256, WARPS = THREADS / reduce::WARP;
static constexpr int GROUPS = 8;  // of a run, at most

struct Sizes {
  int pixels, c, groups, silu;
  int run, slice;  // groups of a cluster, pixels of a block
};

// Shared memory: what a block tells the others of each group, then its slice of one tensor, or of two.
struct Told {
  Two of[GROUPS];
};

template <int CLUSTER, class T> struct Slice {
  static constexpr int N = vec::WIDTH<T>;

  int size, run, pitch;   // channels of a group, groups of the run, channels of a pixel
  int packs, rows;        // of a pixel of the run; pixels that threads have side by side
  int pixels;             // of this block: none, when those before it have all
  int row, end, channel;  // of this thread: its first pixel, their end, its first channel in the run
  int channel_0, group_0; // of the run: its first channel in a pixel, its first group of all samples'
  size_t start;           // of this thread's column of the block's pixels, of pitch c

  __device__ __forceinline__ explicit Slice(const Sizes& p)
      : size(p.c / p.groups), run(p.run), pitch(p.c), packs(run * size / N), rows(THREADS / packs) {
    const int first = min(arch::cluster_rank() * p.slice, p.pixels), of_sample = blockIdx.x / CLUSTER;
    pixels = min(p.slice, p.pixels - first);
    row = threadIdx.x / packs;
    end = row < rows ? pixels : 0;
    channel = threadIdx.x % packs * N;
    channel_0 = of_sample * run * size;
    group_0 = blockIdx.y * p.groups + of_sample * run;
    start = (static_cast<size_t>(blockIdx.y) * p.pixels + first) * pitch + channel_0 + channel;
  }

  // f(where it is in the tensor, where in the slice) for each of this thread's packs.
  template <class F> __device__ __forceinline__ void each(F f) const {
    int kept = threadIdx.x * N;
#pragma unroll 2
    for (int pixel = row; pixel < end; pixel += rows, kept += rows * packs * N) {
      f(start + static_cast<size_t>(pixel) * pitch, kept);
    }
  }

  // Begins to copy the slice of a tensor.
  __device__ __forceinline__ void copy(T* kept, const T* __restrict__ from) const {
    each([&](size_t at, int i) { arch::cp_async16(arch::smem_u32(kept + i), from + at, true); });
  }

  // The group of one of this thread's channels, in the run.
  __device__ __forceinline__ int group(int i) const { return (channel + i) / size; }

  // The block's sum of each group, of what its threads have of their channels: for thread g that of group g. `part` is
  // shared memory, and used once.
  __device__ __forceinline__ float fold(const float (&of)[N], float (&part)[GROUPS * WARPS]) const {
    const int lane = threadIdx.x % reduce::WARP, warp = threadIdx.x / reduce::WARP;
    for (int g = 0; g < run; ++g) {
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < N; ++i) sum += group(i) == g ? of[i] : 0.0f;
      sum = reduce::warp_sum(sum);
      if (lane == 0) part[g * WARPS + warp] = sum;
    }
    __syncthreads();  // the sums of all warps are there
    float all = 0.0f;
    for (int w = 0; is_first_of_group() && w < WARPS; ++w) all += part[threadIdx.x * WARPS + w];
    return all;
  }

  // Whether this thread has the sums of a group.
  __device__ __forceinline__ bool is_first_of_group() const { return static_cast<int>(threadIdx.x) < run; }

  // What each block has told of this thread's group, by rank.
  __device__ __forceinline__ void read(Two (&all)[CLUSTER], const Told& told) const {
#pragma unroll
    for (int rank = 0; rank < CLUSTER; ++rank) {
#pragma unroll
      for (int i = 0; i < 2; ++i) all[rank].v[i] = arch::cluster_load(&told.of[threadIdx.x].v[i], rank);
    }
  }
};

}  // namespace slices
