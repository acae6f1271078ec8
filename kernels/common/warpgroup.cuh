// The products of tile.cuh by wgmma (sm_90a): the same operands, copied to where descriptors find them.
//
// A warpgroup hands the tensor cores a step and goes on: it issues the copies of a later one, and waits for the next
// one's, while they multiply. So two steps are in their hands at a time, and the stage that is filled is that of the
// step before these. The copies are ordinary writes to shared memory: a fence shows them to the tensor cores, which
// read through the async proxy.
#pragma once
#include "arch90.cuh"
#include "tile.cuh"

namespace warpgroup {

template <class T, class S, class A, class B>
ARCH_FN void multiply(float (&acc)[S::I][S::J][4], A& a, B& b, int depth, const unsigned char* smem);

// A block's tile: two warpgroups, each 64 x COLS outputs. A warp has 16 rows of them, as fragments of mma.
template <int COLS_> struct Shape {
  static constexpr int ROWS = 128, COLS = COLS_;
  static constexpr int DEPTH = 64, PIECES = DEPTH / tile::PIECE;  // of one step, a row of 128 bytes; pieces of a row
  static constexpr int STAGES = 4;  // steps in shared memory: two multiplied, the others arriving
  static constexpr int I = 1, J = COLS / 8, WARPS_ACROSS = 1, THREADS = 256;
  static constexpr int ROW_BYTES = 2 * DEPTH, ATOM_BYTES = 8 * ROW_BYTES;
  static constexpr int A_BYTES = ROWS * ROW_BYTES, STAGE_BYTES = A_BYTES + COLS * ROW_BYTES;
  static constexpr int BLOCK_BYTES = DEPTH * ROW_BYTES;  // of 64 columns, where the step lies across the depth

  // Where a piece is in a step whose rows run along the depth, in bytes: the 128-byte swizzle.
  ARCH_FN u32 along_depth(int row, int piece) { return row * ROW_BYTES + ((piece ^ (row % PIECES)) << 4); }

  // Where a piece is in a step whose rows run along columns: 64 of them to a block, whose rows are swizzled alike.
  template <int WIDTH> ARCH_FN u32 along_columns(int row, int piece) {
    return piece / PIECES * BLOCK_BYTES + along_depth(row, piece % PIECES);
  }

  // acc = this block's tile of a b; `smem`: STAGES * STAGE_BYTES.
  template <class T, class A, class B>
  ARCH_FN void multiply(float (&acc)[I][J][4], A& a, B& b, int depth, const unsigned char* smem) {
    warpgroup::multiply<T, Shape>(acc, a, b, depth, smem);
  }
};

// d += one step: 64 rows of a, along the depth, and b (DEPTH, COLS).
template <class T, class S, bool B_ALONG_DEPTH> ARCH_FN void multiply_step(float (&d)[4 * S::J], u32 a, u32 b) {
  constexpr int ALONG = 32, ACROSS = 2 * S::ATOM_BYTES;  // bytes of sixteen along the depth
  const u64 a_part = arch::wgmma_descriptor(a, 16, S::ATOM_BYTES);
  const u64 b_part = arch::wgmma_descriptor(b, B_ALONG_DEPTH ? 16 : S::BLOCK_BYTES, S::ATOM_BYTES);
#pragma unroll
  for (int k = 0; k < S::DEPTH / 16; ++k) {
    const int a_at = k * ALONG, b_at = k * (B_ALONG_DEPTH ? ALONG : ACROSS);
    arch::wgmma<T, 0, !B_ALONG_DEPTH>(d, a_part + a_at / 16, b_part + b_at / 16, 1);
  }
}

// acc = this block's tile of a b; `smem`: S::STAGES * S::STAGE_BYTES.
template <class T, class S, class A, class B>
ARCH_FN void multiply(float (&acc)[S::I][S::J][4], A& a, B& b, int depth, const unsigned char* smem) {
  static_assert(A::ALONG_DEPTH, "no product needs it");
  tile::clear<S>(acc);
  auto& d = reinterpret_cast<float(&)[4 * S::J]>(acc);
  const int steps = (depth + S::DEPTH - 1) / S::DEPTH;
  tile::Ring<S, A, B> ring(a, b, steps, smem);
  u32 read = ring.start;
  const u32 rows = threadIdx.x / 128 * 64 * S::ROW_BYTES;  // of a, before this warpgroup's
#pragma unroll
  for (int i = 0; i < S::STAGES - 2; ++i) ring.fill();
  for (int step = 0; step < steps; ++step) {
    arch::cp_async_wait<S::STAGES - 3>();
    arch::fence_proxy_async();  // the tensor cores see what this thread has copied
    arch::wgmma_wait<1>();
    __syncthreads();  // this step has arrived for all, and all are done with the last but one, which is filled next
    arch::wgmma_fence();
    multiply_step<T, S, B::ALONG_DEPTH>(d, read + rows, read + S::A_BYTES);
    arch::wgmma_commit();
    ring.fill();
    read = ring.after(read);
  }
  arch::wgmma_wait<0>();
}

}  // namespace warpgroup
