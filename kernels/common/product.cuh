// c = a b for each head of each sample, on tensor cores: a block makes 128 x 128 of c, its eight warps 64 x 32 each.
//
// A factor lies along the sum, [m, k] or [n, k], or across it, [k, m] or [k, n]. Three stages of 32 of the sum are on
// their way. What becomes of the results is the caller's: a function of row, column and two neighbours in a row.
// Rows of factors are multiples of 8 long and apart.
#pragma once
#include "arch.cuh"

namespace product {

static constexpr int THREADS = 256, SIDE = 128, DEPTH = 32, STAGES = 3;

// A matrix of one head as it lies in memory; distances in elements.
struct Matrix {
  int rows, cols, pitch, head, sample;
};

// Where this block's head starts.
ARCH_FN size_t start(const Matrix& m, int heads) {
  return static_cast<size_t>(blockIdx.z / heads) * m.sample + static_cast<size_t>(blockIdx.z % heads) * m.head;
}

// A stage of a factor in shared memory. Rows are an odd number of 16-byte chunks apart: matrix loads meet no conflict.
template <bool ACROSS> struct Tile {
  static constexpr int ROWS = ACROSS ? DEPTH : SIDE, CHUNKS = (ACROSS ? SIDE : DEPTH) / 8, PITCH = (CHUNKS + 1) * 16;
  static constexpr int BYTES = ROWS * PITCH;
};

template <bool ACROSS, class T> ARCH_FN void load(u32 tile, const T* from, const Matrix& m, int side, int depth) {
  using Tile = Tile<ACROSS>;
#pragma unroll
  for (int i = threadIdx.x; i < Tile::ROWS * Tile::CHUNKS; i += THREADS) {
    const int r = i / Tile::CHUNKS, c = i % Tile::CHUNKS;
    const int row = (ACROSS ? depth : side) + r, col = (ACROSS ? side : depth) + c * 8;
    const bool keep = row < m.rows && col < m.cols;
    const size_t offset = keep ? static_cast<size_t>(row) * m.pitch + col : 0;
    arch::cp_async16(tile + r * Tile::PITCH + c * 16, from + offset, keep);
  }
}

// Two neighbours of a row, the first in an even column.
template <class T> ARCH_FN void put(T* to, const Matrix& m, int row, int col, float x, float y) {
  *reinterpret_cast<u32*>(to + static_cast<size_t>(row) * m.pitch + col) = arch::pack2<T>(x, y);
}
ARCH_FN void put(float* to, const Matrix& m, int row, int col, float x, float y) {
  const Pack<float, 2> pair{{x, y}};
  *reinterpret_cast<Pack<float, 2>*>(to + static_cast<size_t>(row) * m.pitch + col) = pair;
}

// N times 16 of a tile's side from `side` on, 16 of its depth from `depth` on, as four 8 x 8 tiles in the order
// (side, depth): (0, 0), (8, 0), (0, 8), (8, 8), or with BY_DEPTH (0, 0), (0, 8), (8, 0), (8, 8).
template <bool ACROSS, bool BY_DEPTH, int N> ARCH_FN void fragments(u32 (&r)[N][4], u32 tile, int side, int depth) {
  const int lane = threadIdx.x % 32, eight = lane / 8 % 2 * 8, later = lane / 16 * 8;
  const int s = side + (BY_DEPTH ? later : eight), d = depth + (BY_DEPTH ? eight : later), row = lane % 8;
  u32 at[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    at[i] = tile + (ACROSS ? (d + row) * Tile<ACROSS>::PITCH + (s + i * 16) * 2
                           : (s + i * 16 + row) * Tile<ACROSS>::PITCH + d * 2);
  }
  if (ACROSS) {
    arch::ldmatrix_trans(r, at);
  } else {
    arch::ldmatrix(r, at);
  }
}

// finish(row, col, c[row][col], c[row][col + 1]) for all even columns of this block's part of c, whose columns are even
// in number; `depth` is the length of the sum.
template <class T, bool A_ACROSS, bool B_ACROSS, class Finish>
ARCH_FN void run(const T* a, const Matrix& a_is, const T* b, const Matrix& b_is, const Matrix& c_is, int depth,
                 Finish finish) {
  constexpr int A_BYTES = Tile<A_ACROSS>::BYTES, STAGE = A_BYTES + Tile<B_ACROSS>::BYTES;
  DYN_SMEM(dynamic);
  const u32 tiles = arch::smem_u32(dynamic);  // STAGES of (a's tile, b's tile)
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warp_row = warp / 4 * 64, warp_col = warp % 4 * 32;
  const int block_row = blockIdx.y * SIDE, block_col = blockIdx.x * SIDE;
  const auto fetch = [&](int step) {
    const u32 stage = tiles + step % STAGES * STAGE;
    if (step * DEPTH < depth) {
      load<A_ACROSS>(stage, a, a_is, block_row, step * DEPTH);
      load<B_ACROSS>(stage + A_BYTES, b, b_is, block_col, step * DEPTH);
    }
    arch::cp_async_commit();
  };

  float sums[4][4][4] = {};
  for (int step = 0; step < STAGES - 1; ++step) fetch(step);
  for (int step = 0; step * DEPTH < depth; ++step) {
    const u32 stage = tiles + step % STAGES * STAGE;
    arch::cp_async_wait<STAGES - 2>();
    __syncthreads();  // the stage is there; the one before is no longer in use
    fetch(step + STAGES - 1);
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
      u32 left[4][4], right[2][4], pairs[4][2];
      fragments<A_ACROSS, false>(left, stage, warp_row, k);
      fragments<B_ACROSS, true>(right, stage + A_BYTES, warp_col, k);
#pragma unroll
      for (int j = 0; j < 8; ++j) pairs[j / 2][j % 2] = right[j / 4][j % 4];
      arch::mma<T>(sums, left, pairs);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int row = block_row + warp_row + i * 16 + half * 8 + lane / 4;
        const int col = block_col + warp_col + j * 8 + lane % 4 * 2;
        if (row < c_is.rows && col < c_is.cols) finish(row, col, sums[i][j][half * 2], sums[i][j][half * 2 + 1]);
      }
}

}  // namespace product
