// Flash attention's pieces on tensor cores: tiles of rows in shared memory, and the products of a warp's 16 I rows
// with the rows that pass by.
//
// A tile holds rows of D halves (a head's d channels, zeros beyond), each an odd number of 16-byte chunks after the
// last: the eight rows that a matrix load takes then lie in different banks. A warp's scores are s[i][j] (16 x 8), its
// sums over channels x[n][i][..] (16 x 16), both in mma's accumulator layout: lane l has the columns 2 (l % 4) and the
// next of rows l / 4 and l / 4 + 8.
#pragma once
#include "arch.cuh"

namespace flash {

static constexpr int THREADS = 128, WARPS = THREADS / 32;
static constexpr float LOG2E = 1.44269504f;

ARCH_FN float infinity() { return __uint_as_float(0x7f800000u); }

// Bytes from a tile's row to the next.
template <int D> static constexpr int PITCH = (D / 8 + 1) * 16;

// The rows of one head of one sample in device memory.
template <class T> struct Rows {
  T* at;
  size_t width;  // elements from a row to the next
  int count, d;
};

// Rows first .. first + ROWS to a tile, by all threads; zeros past the last row and past d.
template <int D, int ROWS, class T> ARCH_FN void load(u32 tile, Rows<const T> from, int first) {
  constexpr int CHUNKS = D / 8;
#pragma unroll
  for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
    const int row = i / CHUNKS, c = i % CHUNKS * 8;
    const bool keep = first + row < from.count && c < from.d;
    const size_t offset = keep ? (first + row) * from.width + c : 0;
    arch::cp_async16(tile + row * PITCH<D> + c * 2, from.at + offset, keep);
  }
}

// This lane's address for loading 16 x 16 of a tile: as mma's first operand, or transposed as its second.
template <int D> ARCH_FN u32 lane_at(u32 rows) {
  const int lane = threadIdx.x % 32;
  return rows + lane % 16 * PITCH<D> + lane / 16 * 16;
}

// s = a b^T, over the channels of this warp's rows from a on (16 I) and of b's (8 J).
template <class T, int D, int I, int J> ARCH_FN void scores(float (&s)[I][J][4], u32 a, u32 b) {
  const int lane = threadIdx.x % 32;
  a = lane_at<D>(a);
  b += (lane / 16 * 8 + lane % 8) * PITCH<D> + lane / 8 % 2 * 16;
#pragma unroll
  for (int i = 0; i < I; ++i)
#pragma unroll
    for (int j = 0; j < J; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[i][j][e] = 0.0f;
#pragma unroll
  for (int c = 0; c < D; c += 16) {
    u32 a_at[I], b_at[J / 2];
#pragma unroll
    for (int i = 0; i < I; ++i) a_at[i] = a + i * 16 * PITCH<D> + c * 2;
#pragma unroll
    for (int j = 0; j < J / 2; ++j) b_at[j] = b + j * 16 * PITCH<D> + c * 2;
    arch::mma_smem<T>(s, a_at, b_at);
  }
}

// -infinity for the scores of queries first .. with keys start .. that the query does not see: past the last of `keys`
// or, when causal, past its own.
template <int I, int J>
ARCH_FN void hide(float (&s)[I][J][4], int first, int start, int keys, bool causal) {
  const int lane = threadIdx.x % 32;
  if (start + 8 * J <= (causal ? min(keys, first + 1) : keys)) return;
#pragma unroll
  for (int i = 0; i < I; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int seen = causal ? min(keys, first + i * 16 + e / 2 * 8 + lane / 4 + 1) : keys;
#pragma unroll
      for (int j = 0; j < J; ++j) {
        if (start + j * 8 + lane % 4 * 2 + e % 2 >= seen) s[i][j][e] = -infinity();
      }
    }
}

// x += s b, over b's rows (8 J).
template <class T, int D, int I, int J>
ARCH_FN void accumulate(float (&x)[D / 16][I][2][4], const float (&s)[I][J][4], u32 b) {
  b = lane_at<D>(b);
#pragma unroll
  for (int j = 0; j < J; j += 2) {
    u32 a[I][4];
#pragma unroll
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) a[i][e] = arch::pack2<T>(s[i][j + e / 2][e % 2 * 2], s[i][j + e / 2][e % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < D / 16; ++n) {
      const u32 at[1] = {b + j * 8 * PITCH<D> + n * 32};
      u32 r[1][4];
      arch::ldmatrix_trans(r, at);
      const u32 pair[2][2] = {{r[0][0], r[0][1]}, {r[0][2], r[0][3]}};
      arch::mma<T>(x[n], a, pair);
    }
  }
}

template <int N, int I> ARCH_FN void zero(float (&x)[N][I][2][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int e = 0; e < 8; ++e) x[n][i][e / 4][e % 4] = 0.0f;
}

// factor[i][half] times the rows of x.
template <int N, int I> ARCH_FN void scale(float (&x)[N][I][2][4], const float (&factor)[I][2]) {
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int e = 0; e < 8; ++e) x[n][i][e / 4][e % 4] *= factor[i][e % 4 / 2];
}

template <int N, int I> ARCH_FN void scale(float (&x)[N][I][2][4], float factor) {
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int e = 0; e < 8; ++e) x[n][i][e / 4][e % 4] *= factor;
}

// This warp's rows of x to rows first .. of device memory, by way of the shared rows they came from, which only this
// warp still used.
template <class T, int D, int I>
ARCH_FN void store(Rows<T> to, int first, unsigned char* shared, const float (&x)[D / 16][I][2][4]) {
  constexpr int CHUNKS = D / 8;
  const int lane = threadIdx.x % 32;
  __syncwarp();  // the warp's loads from these rows are over
#pragma unroll
  for (int n = 0; n < D / 16; ++n)
#pragma unroll
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = i * 16 + e % 2 * 8 + lane / 4, c = n * 16 + e / 2 * 8 + lane % 4 * 2;
        const float(&v)[4] = x[n][i][e / 2];
        *reinterpret_cast<u32*>(shared + row * PITCH<D> + c * 2) = arch::pack2<T>(v[e % 2 * 2], v[e % 2 * 2 + 1]);
      }
  __syncwarp();  // whole rows are there
  for (int i = lane; i < I * 16 * CHUNKS; i += 32) {
    const int row = i / CHUNKS, c = i % CHUNKS * 8;
    if (first + row < to.count && c < to.d) {
      using Chunk = Pack<u32, 4>;
      const Chunk* const from = reinterpret_cast<const Chunk*>(shared + row * PITCH<D> + c * 2);
      *reinterpret_cast<Chunk*>(to.at + (first + row) * to.width + c) = *from;
    }
  }
}

}  // namespace flash
