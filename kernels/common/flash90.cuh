// Flash attention's pieces by wgmma (sm_90a), for head dims to 64: three warpgroups, of which two multiply, 64 rows of
// their own each, and the third copies the rows that pass by (FlashAttention-3).
//
// A tile holds rows of 64 halves (a head's d channels, zeros beyond), 128 bytes with their swizzle: one layout, which
// the tensor cores read along the channels, for scores, and across them, for sums over rows. Scores and sums lie in
// registers as in flash.cuh, whose fragments have the same layout, with I = 1.
#pragma once
#include "flash.cuh"
#include "ring90.cuh"

namespace flash90 {

static constexpr int D = 64, PIECES = D / 8;                   // channels, and pieces of 16 bytes, of a row
static constexpr int ROW_BYTES = 2 * D, ATOM_BYTES = 8 * ROW_BYTES;
static constexpr int GROUP = 128, WARPS = GROUP / 32;          // of a warpgroup
static constexpr int OWN = 64, ROWS = 2 * OWN;                 // rows of a warpgroup that multiplies, of a block
static constexpr int MULTIPLIERS = 2 * GROUP, THREADS = MULTIPLIERS + GROUP;
static constexpr int STAGES = 4;                               // tiles in shared memory
static constexpr int COPIER_REGISTERS = 40, MULTIPLIER_REGISTERS = 232;  // of a thread; all are launched with 168
static_assert(COPIER_REGISTERS + 2 * MULTIPLIER_REGISTERS <= 3 * 168, "they only change hands");

using Sums = float[D / 16][1][2][4];  // over channels, of a warp's 16 rows

// Where a piece of a row is in a tile, in bytes.
ARCH_FN u32 place(int row, int piece) { return row * ROW_BYTES + ((piece ^ (row % 8)) << 4); }

// COUNT rows from `first` on to a tile, by the copying warpgroup; zeros past the last row and past d.
template <int COUNT, class T> ARCH_FN void load(u32 tile, flash::Rows<const T> from, int first) {
  const int row = threadIdx.x % GROUP / PIECES, piece = threadIdx.x % PIECES;
#pragma unroll 4  // no more addresses than there are registers for
  for (int i = 0; i < COUNT; i += GROUP / PIECES) {
    const bool keep = first + row + i < from.count && piece * 8 < from.d;
    const size_t offset = keep ? (first + row + i) * from.width + piece * 8 : 0;
    arch::cp_async16(tile + place(row + i, piece), from.at + offset, keep);
  }
}

// Stages of tiles, which the copying warpgroup fills and both others use.
template <int BYTES> struct Ring : ring90::Ring<STAGES, BYTES> {
  // By one thread, before a __syncthreads.
  __device__ __forceinline__ void init() const { ring90::Ring<STAGES, BYTES>::init(WARPS, 2 * WARPS); }

  // Fills the stages by copy(stage, i), one tile ahead of the one that must have arrived.
  template <class Copy> __device__ __forceinline__ void fill(int tiles, Copy copy) const {
    for (int i = 0; i <= tiles; ++i) {
      if (i < tiles) {
        this->await_empty(i);
        copy(this->stage(i), i);
      }
      arch::cp_async_commit();
      if (i > 0) {
        arch::cp_async_wait<1>();
        arch::fence_proxy_async();  // the tensor cores see what this thread has copied
        ring90::announce(this->full(i - 1));
      }
    }
  }
};

// The turns of the multiplying warpgroups at the tensor cores. The first is warpgroup 0's, the last warpgroup 1's.
struct Turns {
  int group;

  __device__ __forceinline__ void take(bool first) const {
    if (group == 1 || !first) arch::bar_sync(1 + group, MULTIPLIERS);
  }
  __device__ __forceinline__ void pass(bool last) const {
    if (group == 0 || !last) arch::bar_arrive(2 - group, MULTIPLIERS);
  }
};

// A warpgroup's way through the tiles. In its turn it hands the tensor cores the scores of a tile, score(i), and the
// sums of the one before, sum(i - 1); while they multiply these, and then what the other warpgroup hands them, it makes
// weights of the scores, weigh(i), and in the end operands of the weights, pack().
template <class Ring, class Score, class Weigh, class Pack, class Sum>
ARCH_FN void multiply(const Ring& ring, int tiles, Score score, Weigh weigh, Pack pack, Sum sum) {
  const Turns turns{static_cast<int>(threadIdx.x) / GROUP};
  ring.await(0);
  turns.take(true);
  score(0);
  arch::wgmma_commit();
  turns.pass(false);
  arch::wgmma_wait<0>();
  weigh(0);
  pack();
  for (int i = 1; i < tiles; ++i) {
    ring.await(i);
    turns.take(false);
    score(i);
    arch::wgmma_commit();
    sum(i - 1);
    arch::wgmma_commit();
    turns.pass(false);
    arch::wgmma_wait<1>();  // the scores are there
    weigh(i);
    arch::wgmma_wait<0>();  // the operands of the tile before are no longer in use, nor is its stage
    ring.release(i - 1);
    pack();
  }
  turns.take(false);
  sum(tiles - 1);
  arch::wgmma_commit();
  turns.pass(true);
  arch::wgmma_wait<0>();  // the sums are there
}

// Runs a block: copy(stage, i) by one warpgroup, work() by the others.
template <class Ring, class Copy, class Work>
ARCH_FN void run(const Ring& ring, int tiles, Copy copy, Work work) {
  if (threadIdx.x == 0) ring.init();
  __syncthreads();  // the barriers are initialised
  if (threadIdx.x < MULTIPLIERS) {
    arch::setmaxnreg_inc<MULTIPLIER_REGISTERS>();
    work();
  } else {
    arch::setmaxnreg_dec<COPIER_REGISTERS>();
    ring.fill(tiles, copy);
  }
}

// Of a tile's rows, whichever way they are read.
ARCH_FN u64 descriptor(u32 rows) { return arch::wgmma_descriptor(rows, 16, ATOM_BYTES); }

// s = a b^T, over the channels of 64 rows from a on and of b's (8 J).
template <class T, int J> ARCH_FN void scores(float (&s)[1][J][4], u32 a, u32 b) {
  auto& d = reinterpret_cast<float(&)[4 * J]>(s);
  const u64 left = descriptor(a), right = descriptor(b);
  arch::wgmma_fence();  // s was read and written since the last product
#pragma unroll
  for (int k = 0; k < D / 16; ++k) arch::wgmma<T, 0, 0>(d, left + k * 32 / 16, right + k * 32 / 16, k > 0);
}

// This warp's 16 of 64 rows, as the first operand: a[k] has the channels 16 k ..
ARCH_FN void fragments(u32 (&a)[D / 16][4], u32 from) {
  const int lane = threadIdx.x % 32;
  u32 at[D / 16];
#pragma unroll
  for (int k = 0; k < D / 16; ++k) at[k] = from + place(threadIdx.x % GROUP / 32 * 16 + lane % 16, k * 2 + lane / 16);
  arch::ldmatrix(a, at);
}

// The same scores of 64 rows of b, with a's in registers: half the bytes out of shared memory.
template <class T> ARCH_FN void scores(float (&s)[1][8][4], const u32 (&a)[D / 16][4], u32 b) {
  auto& d = reinterpret_cast<float(&)[32]>(s);
  const u64 right = descriptor(b);
  arch::wgmma_fence();
#pragma unroll
  for (int k = 0; k < D / 16; ++k) arch::wgmma_registers<T, 0>(d, a[k], right + k * 32 / 16, k > 0);
}

// x += a b, over b's rows (16 K).
template <class T, int K> ARCH_FN void accumulate(Sums& x, const u32 (&a)[K][1][4], u32 b) {
  auto& d = reinterpret_cast<float(&)[D / 2]>(x);
  const u64 right = descriptor(b);
  arch::wgmma_fence();  // x was scaled, a was written
#pragma unroll
  for (int k = 0; k < K; ++k) arch::wgmma_registers<T, 1>(d, a[k][0], right + k * 2 * ATOM_BYTES / 16, 1);
}

// This warp's 16 rows of x to rows first .. of device memory, by way of the tile of `shared` rows they came from, which
// its warpgroup still used.
template <class T>
ARCH_FN void store(flash::Rows<T> to, int first, unsigned char* shared, const Sums& x) {
  const int lane = threadIdx.x % 32, group = threadIdx.x / GROUP, own = threadIdx.x / 32 * 16;
  arch::bar_sync(3 + group, GROUP);  // the warpgroup's products are over
#pragma unroll
  for (int n = 0; n < D / 16; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const u32 at = place(own + e % 2 * 8 + lane / 4, n * 2 + e / 2) + lane % 4 * 4;
      const float(&v)[4] = x[n][0][e / 2];
      *reinterpret_cast<u32*>(shared + at) = arch::pack2<T>(v[e % 2 * 2], v[e % 2 * 2 + 1]);
    }
  __syncwarp();  // whole rows are there
#pragma unroll
  for (int i = lane; i < 16 * PIECES; i += 32) {
    const int row = i / PIECES, piece = i % PIECES;
    if (first + row < to.count && piece * 8 < to.d) {
      using Piece = Pack<u32, 4>;
      const Piece* const from = reinterpret_cast<const Piece*>(shared + place(own + row, piece));
      *reinterpret_cast<Piece*>(to.at + (first + row) * to.width + piece * 8) = *from;
    }
  }
}

}  // namespace flash90
