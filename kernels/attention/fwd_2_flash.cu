// o = softmax(scale q k^T) v for each head, and lse, on tensor cores: the scores stay in registers.
//
// o, q: [samples, tq, heads * d]; k, v: [samples, tk, heads * d], or one sample shared by all; lse: [samples, heads,
// tq], f32. Causal: query i sees keys 0 to i. A block takes 64 I queries of a head, 16 I a warp; tiles of keys and
// values pass by, the next on its way while one is worked on. Softmax by a running maximum and denominator
// (FlashAttention-2). The products take probabilities in 16 bits: o is divided by the sum of those, so that its weights
// sum to one, and lse is of the unrounded sum. Requires d % 8 == 0, d <= D.
#include "flash.cuh"

namespace {

struct Params {
  int heads, d, tq, tk, shared, causal;
  float scale_log2e;
};

// The largest value among the four lanes that share a row.
ARCH_FN float row_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
// Their sum.
ARCH_FN float row_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

template <class T, int D, int I, int KEYS>
ARCH_FN void attention(T* __restrict__ o, float* __restrict__ lse, const T* __restrict__ q, const T* __restrict__ k,
                       const T* __restrict__ v, Params p) {
  constexpr int QUERIES = flash::WARPS * 16 * I, PITCH = flash::PITCH<D>, J = KEYS / 8;
  DYN_SMEM(dynamic);
  const int h = blockIdx.y, n = blockIdx.z, lane = threadIdx.x % 32;
  const int block = blockIdx.x * QUERIES, own = threadIdx.x / 32 * 16 * I, first = block + own;
  const size_t width = static_cast<size_t>(p.heads) * p.d;
  const size_t at = static_cast<size_t>(n) * p.tq * width + h * p.d;
  const size_t source = (p.shared ? 0 : static_cast<size_t>(n)) * p.tk * width + h * p.d;
  const flash::Rows<const T> queries{q + at, width, p.tq, p.d}, keys{k + source, width, p.tk, p.d},
      values{v + source, width, p.tk, p.d};
  const u32 q_tile = arch::smem_u32(dynamic);  // (QUERIES, D)
  const u32 tiles = q_tile + QUERIES * PITCH;  // two of (KEYS of k, KEYS of v)
  const int last = p.causal ? min(p.tk, block + QUERIES) : p.tk;  // keys that this block sees

  float sums[D / 16][I][2][4], most[I][2], total[I][2], rounded[I][2];
  flash::zero(sums);
#pragma unroll
  for (int r = 0; r < 2 * I; ++r) {
    most[r / 2][r % 2] = -flash::infinity();
    total[r / 2][r % 2] = rounded[r / 2][r % 2] = 0.0f;
  }
  flash::load<D, QUERIES>(q_tile, queries, block);
  flash::load<D, KEYS>(tiles, keys, 0);
  flash::load<D, KEYS>(tiles + KEYS * PITCH, values, 0);
  arch::cp_async_commit();

  for (int start = 0; start < last; start += KEYS) {
    const u32 k_tile = tiles + start / KEYS % 2 * 2 * KEYS * PITCH, v_tile = k_tile + KEYS * PITCH;
    arch::cp_async_wait<0>();
    __syncthreads();  // the tile is there; the other one is no longer in use
    if (start + KEYS < last) {
      const u32 next = tiles + (start / KEYS + 1) % 2 * 2 * KEYS * PITCH;
      flash::load<D, KEYS>(next, keys, start + KEYS);
      flash::load<D, KEYS>(next + KEYS * PITCH, values, start + KEYS);
      arch::cp_async_commit();
    }
    float s[I][J][4];
    flash::scores<T, D>(s, q_tile + own * PITCH, k_tile);
    flash::hide(s, first, start, p.tk, p.causal);
    float shrink[I][2];
#pragma unroll
    for (int r = 0; r < 2 * I; ++r) {
      const int i = r / 2, e = r % 2 * 2;
      float now = most[i][r % 2];
#pragma unroll
      for (int j = 0; j < J; ++j) now = fmaxf(now, fmaxf(s[i][j][e], s[i][j][e + 1]));
      now = row_max(now);
      shrink[i][r % 2] = arch::ex2(p.scale_log2e * (most[i][r % 2] - now));
      most[i][r % 2] = now;
      float sum = 0.0f, rounded_sum = 0.0f;
#pragma unroll
      for (int j = 0; j < J; ++j)
#pragma unroll
        for (int c = e; c < e + 2; ++c) {
          const float share = arch::ex2(p.scale_log2e * s[i][j][c] - p.scale_log2e * now);
          s[i][j][c] = arch::to_f32(arch::from_f32<T>(share));
          sum += share;
          rounded_sum += s[i][j][c];
        }
      total[i][r % 2] = total[i][r % 2] * shrink[i][r % 2] + sum;
      rounded[i][r % 2] = rounded[i][r % 2] * shrink[i][r % 2] + rounded_sum;
    }
    flash::scale(sums, shrink);
    flash::accumulate<T, D>(sums, s, v_tile);
  }

  float share[I][2];
#pragma unroll
  for (int r = 0; r < 2 * I; ++r) {
    const int row = first + r / 2 * 16 + r % 2 * 8 + lane / 4;
    const float denominator = row_sum(total[r / 2][r % 2]);
    share[r / 2][r % 2] = 1.0f / row_sum(rounded[r / 2][r % 2]);
    if (lane % 4 == 0 && row < p.tq) {
      lse[(static_cast<size_t>(n) * p.heads + h) * p.tq + row] =
          p.scale_log2e * most[r / 2][r % 2] / flash::LOG2E + logf(denominator);
    }
  }
  flash::scale(sums, share);
  flash::store<T, D>(flash::Rows<T>{o + at, width, p.tq, p.d}, first, dynamic + own * PITCH, sums);
}

}  // namespace

// For head dims to D: 64 I queries a block against tiles of KEYS keys.
#define ENTRY(T, dtype, D, I, KEYS)                                                                                  \
  extern "C" __global__ void __launch_bounds__(128, 2)                                                               \
      attention_fwd_2_flash_d##D##_##dtype(T* o, float* lse, const T* q, const T* k, const T* v, Params p) {         \
    attention<T, D, I, KEYS>(o, lse, q, k, v, p);                                                                    \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_fwd_2_flash_d##D##_##dtype)
#define ENTRIES(T, dtype) \
  ENTRY(T, dtype, 48, 2, 32) ENTRY(T, dtype, 64, 2, 32) ENTRY(T, dtype, 80, 1, 64) ENTRY(T, dtype, 160, 1, 32)
FOR_EACH_HALF(ENTRIES)
