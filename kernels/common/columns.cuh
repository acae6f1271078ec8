// Sums over the rows of a matrix, in a fixed order. A block takes ACROSS packs of N columns, DOWN rows at a time: thread
// t the pack t % ACROSS of every DOWN-th row. Grid: chunks of rows, tiles of columns, matrices.
#pragma once
#include "reduce.cuh"
#include "vector.cuh"

namespace columns {

static constexpr int ACROSS = 8, DOWN = 32, THREADS = ACROSS * DOWN, WARPS = THREADS / reduce::WARP;

// Floats of shared memory that `fold` takes.
template <int N> static constexpr int PART = WARPS * ACROSS * N;

// This thread's first column, and its first row of the block's.
template <int N> ARCH_FN int column() { return (blockIdx.y * ACROSS + threadIdx.x % ACROSS) * N; }
ARCH_FN int row() { return threadIdx.x / ACROSS; }

// Packs of N: whole 16 bytes, or single elements.
template <int N, class T> ARCH_FN void load(float (&v)[N], const T* __restrict__ from) {
  if constexpr (N == 1) {
    v[0] = arch::to_f32(*from);
  } else {
    vec::load(v, from);
  }
}
template <int N, class T> ARCH_FN void store(T* __restrict__ to, const float (&v)[N]) {
  if constexpr (N == 1) {
    *to = arch::from_f32<T>(v[0]);
  } else {
    vec::store(to, v);
  }
}

// Adds up the sums of the block's rows, for the threads of the first one. `part` is used once.
template <int N> ARCH_FN void fold(float (&sum)[N], float* part) {
  const int lane = threadIdx.x % reduce::WARP, warp = threadIdx.x / reduce::WARP;
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int offset = ACROSS; offset < reduce::WARP; offset *= 2) {
      sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], offset);
    }
    if (lane < ACROSS) part[(warp * ACROSS + lane) * N + i] = sum[i];
  }
  __syncthreads();  // the sums of all warps are there
  if (row() == 0) {
    for (int w = 1; w < WARPS; ++w) {
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += part[(w * ACROSS + lane) * N + i];
    }
  }
}

// y = the sum over rows of x: (rows, c), for this block's columns.
template <int N, class To, class T>
ARCH_FN void sum(To* __restrict__ y, const T* __restrict__ x, int rows, int c, float* part) {
  const int at = column<N>();
  float all[N] = {};
  if (at < c) {
#pragma unroll 4
    for (int r = row(); r < rows; r += DOWN) {
      float v[N];
      load(v, x + static_cast<size_t>(r) * c + at);
#pragma unroll
      for (int i = 0; i < N; ++i) all[i] += v[i];
    }
  }
  fold(all, part);
  if (row() == 0 && at < c) store(y + at, all);
}

struct Fold {
  int rows, c;
};

// The second launch of what leaves two sums for each chunk: a = the sum over rows of part[0], b = that of part[1].
// part: (2, rows, c). Grid: 1, tiles of single columns, 2.
ARCH_FN void fold_two(float* __restrict__ a, float* __restrict__ b, const float* __restrict__ part, Fold p) {
  SHARED_ARRAY(float, shared, PART<1>);
  const size_t start = static_cast<size_t>(blockIdx.z) * p.rows * p.c;
  sum<1>(blockIdx.z == 0 ? a : b, part + start, p.rows, p.c, shared);
}

}  // namespace columns
