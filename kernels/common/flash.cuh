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

// s in 16 bits, as mma's first operand: a[k] has the columns 16 k ..
template <class T, int I, int J> ARCH_FN void pack(u32 (&a)[J / 2][I][4], const float (&s)[I][J][4]) {
#pragma unroll
  for (int j = 0; j < J; ++j)
#pragma unroll
    for (int r = 0; r < 2 * I; ++r) {
      const float(&v)[4] = s[r / 2][j];
      a[j / 2][r / 2][j % 2 * 2 + r % 2] = arch::pack2<T>(v[r % 2 * 2], v[r % 2 * 2 + 1]);
    }
}

// x += a b, over b's rows (16 K).
template <class T, int D, int I, int K>
ARCH_FN void accumulate(float (&x)[D / 16][I][2][4], const u32 (&a)[K][I][4], u32 b) {
  b = lane_at<D>(b);
#pragma unroll
  for (int k = 0; k < K; ++k)
#pragma unroll
    for (int n = 0; n < D / 16; ++n) {
      const u32 at[1] = {b + k * 16 * PITCH<D> + n * 32};
      u32 r[1][4];
      arch::ldmatrix_trans(r, at);
      const u32 pair[2][2] = {{r[0][0], r[0][1]}, {r[0][2], r[0][3]}};
      arch::mma<T>(x[n], a[k], pair);
    }
}

// What the four lanes that share a row have: the largest, and the sum.
ARCH_FN float row_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
ARCH_FN float row_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

// The softmax of rows whose scores pass by in tiles: of the tiles so far, each row's largest score and this lane's sums
// of weights, exp(scale (score - most)), as they are and in 16 bits. Products take the latter.
template <int I> struct Softmax {
  float scale_log2e;
  float most[I][2], total[I][2], rounded[I][2];

  __device__ __forceinline__ explicit Softmax(float scale) : scale_log2e(scale) {
#pragma unroll
    for (int r = 0; r < 2 * I; ++r) {
      most[r / 2][r % 2] = -infinity();
      total[r / 2][r % 2] = rounded[r / 2][r % 2] = 0.0f;
    }
  }

  // Turns a tile's scores into weights, and says what to multiply by what was summed of the tiles before. At least one
  // score of the first tile's rows is seen.
  template <int J> __device__ __forceinline__ void weigh(float (&s)[I][J][4], float (&shrink)[I][2]) {
#pragma unroll
    for (int r = 0; r < 2 * I; ++r) {
      const int i = r / 2, e = r % 2 * 2;
      float now = most[i][r % 2];
#pragma unroll
      for (int j = 0; j < J; ++j) now = fmaxf(now, fmaxf(s[i][j][e], s[i][j][e + 1]));
      now = row_max(now);
      shrink[i][r % 2] = arch::ex2(scale_log2e * (most[i][r % 2] - now));
      most[i][r % 2] = now;
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < J; ++j)
#pragma unroll
        for (int c = e; c < e + 2; ++c) {
          s[i][j][c] = arch::ex2(scale_log2e * s[i][j][c] - scale_log2e * now);
          sum += s[i][j][c];
        }
      total[i][r % 2] = total[i][r % 2] * shrink[i][r % 2] + sum;
      rounded[i][r % 2] *= shrink[i][r % 2];
    }
  }

  // Counts the tile's weights in 16 bits.
  template <class T, int K> __device__ __forceinline__ void count(const u32 (&a)[K][I][4]) {
#pragma unroll
    for (int r = 0; r < 2 * I; ++r) {
      float sum = 0.0f;
#pragma unroll
      for (int k = 0; k < K; ++k)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const u32 pair = a[k][r / 2][half * 2 + r % 2];
          sum += arch::low2<T>(pair) + arch::high2<T>(pair);
        }
      rounded[r / 2][r % 2] += sum;
    }
  }

  // After the last tile: what makes each row's weights, as the products took them, sum to one; and lse, of queries
  // first .., to one head's.
  __device__ __forceinline__ void finish(float (&share)[I][2], float* lse, int first, int queries) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2 * I; ++r) {
      const int row = first + r / 2 * 16 + r % 2 * 8 + lane / 4;
      const float denominator = row_sum(total[r / 2][r % 2]);
      share[r / 2][r % 2] = 1.0f / row_sum(rounded[r / 2][r % 2]);
      if (lane % 4 == 0 && row < queries) lse[row] = scale_log2e * most[r / 2][r % 2] / LOG2E + logf(denominator);
    }
  }
};

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

// factor times all of x.
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
