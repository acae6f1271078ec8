// dq = ds k, with ds = scale p (dy v^T - delta), p = exp(scale q k^T - lse), on tensor cores: p and ds stay in
// registers.
//
// dq, dy, q: [samples, tq, heads * d]; k, v: [samples, tk, heads * d], or one sample shared by all; stats: [samples,
// heads, padded] pairs (lse log2 e, delta), see vjp_stats.cu. Causal: query i sees keys 0 to i. A block takes 64 I
// queries of a head, 16 I a warp; tiles of keys and values pass by, the next on its way while one is worked on.
// Requires d % 8 == 0, d <= D, padded % (64 I) == 0.
#include "flash.cuh"

namespace {

struct Params {
  int heads, d, tq, tk, padded, shared, causal;
  float scale, scale_log2e;
};

template <class T, int D, int I, int KEYS>
ARCH_FN void attention_vjp(T* __restrict__ dq, const T* __restrict__ dy, const T* __restrict__ q,
                           const T* __restrict__ k, const T* __restrict__ v, const float* __restrict__ stats,
                           Params p) {
  constexpr int QUERIES = flash::WARPS * 16 * I, PITCH = flash::PITCH<D>, J = KEYS / 8;
  DYN_SMEM(dynamic);
  const int h = blockIdx.y, n = blockIdx.z, lane = threadIdx.x % 32;
  const int block = blockIdx.x * QUERIES, own = threadIdx.x / 32 * 16 * I, first = block + own;
  const size_t width = static_cast<size_t>(p.heads) * p.d;
  const size_t at = static_cast<size_t>(n) * p.tq * width + h * p.d;
  const size_t source = (p.shared ? 0 : static_cast<size_t>(n)) * p.tk * width + h * p.d;
  const flash::Rows<const T> queries{q + at, width, p.tq, p.d}, cotangents{dy + at, width, p.tq, p.d},
      keys{k + source, width, p.tk, p.d}, values{v + source, width, p.tk, p.d};
  const u32 q_tile = arch::smem_u32(dynamic);    // (QUERIES, D)
  const u32 dy_tile = q_tile + QUERIES * PITCH;  // (QUERIES, D)
  const u32 tiles = dy_tile + QUERIES * PITCH;   // two of (KEYS of k, KEYS of v)
  const int last = p.causal ? min(p.tk, block + QUERIES) : p.tk;  // keys that this block sees

  flash::load<D, QUERIES>(q_tile, queries, block);
  flash::load<D, QUERIES>(dy_tile, cotangents, block);
  flash::load<D, KEYS>(tiles, keys, 0);
  flash::load<D, KEYS>(tiles + KEYS * PITCH, values, 0);
  arch::cp_async_commit();
  float sums[D / 16][I][2][4], lse[I][2], delta[I][2];
  flash::zero(sums);
#pragma unroll
  for (int r = 0; r < 2 * I; ++r) {
    const int row = first + r / 2 * 16 + r % 2 * 8 + lane / 4;
    const Pack<float, 2> pair = reinterpret_cast<const Pack<float, 2>*>(
        stats)[(static_cast<size_t>(n) * p.heads + h) * p.padded + row];
    lse[r / 2][r % 2] = pair.v[0];
    delta[r / 2][r % 2] = pair.v[1];
  }

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
    float s[I][J][4], ds[I][J][4];
    flash::scores<T, D>(s, q_tile + own * PITCH, k_tile);
    flash::scores<T, D>(ds, dy_tile + own * PITCH, v_tile);
    flash::hide(s, first, start, p.tk, p.causal);
#pragma unroll
    for (int i = 0; i < I; ++i)
#pragma unroll
      for (int j = 0; j < J; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float weight = arch::ex2(p.scale_log2e * s[i][j][e] - lse[i][e / 2]);
          ds[i][j][e] = weight * (ds[i][j][e] - delta[i][e / 2]);
        }
    u32 operand[J / 2][I][4];
    flash::pack<T>(operand, ds);
    flash::accumulate<T, D>(sums, operand, k_tile);
  }
  flash::scale(sums, p.scale);
  flash::store<T, D>(flash::Rows<T>{dq + at, width, p.tq, p.d}, first, dynamic + own * PITCH, sums);
}

}  // namespace

// For head dims to D: 64 I queries a block against tiles of KEYS keys.
#define ENTRY(T, dtype, D, I, KEYS)                                                                                  \
  extern "C" __global__ void __launch_bounds__(128) attention_vjp_2_flash_d##D##_##dtype(                            \
      T* dq, const T* dy, const T* q, const T* k, const T* v, const float* stats, Params p) {                        \
    attention_vjp<T, D, I, KEYS>(dq, dy, q, k, v, stats, p);                                                         \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_vjp_2_flash_d##D##_##dtype)
#define ENTRIES(T, dtype) \
  ENTRY(T, dtype, 48, 2, 32) ENTRY(T, dtype, 64, 2, 32) ENTRY(T, dtype, 80, 2, 32) ENTRY(T, dtype, 160, 1, 32)
FOR_EACH_HALF(ENTRIES)
