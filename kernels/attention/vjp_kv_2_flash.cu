// dk = ds^T q and dv = p^T dy, with p = exp(scale q k^T - lse), ds = scale p (dy v^T - delta), on tensor cores: p and
// ds stay in registers, transposed.
//
// dk, dv, k, v: [samples, tk, heads * d]; dy, q: [samples, tq, heads * d]; stats: [samples, heads, padded] pairs (lse
// log2 e, delta), see vjp_stats.cu. Causal: key j is seen by the queries from j on. A block takes 64 I keys of a head,
// 16 I a warp, and alone writes their cotangents; tiles of queries pass by, the next on its way while one is worked on.
// Requires d % 8 == 0, d <= D, padded % QUERIES == 0.
#include "flash.cuh"

namespace {

struct Params {
  int heads, d, tq, tk, padded, causal;
  float scale, scale_log2e;
};

template <class T, int D, int I, int QUERIES>
ARCH_FN void attention_vjp_kv(T* __restrict__ dk, T* __restrict__ dv, const T* __restrict__ dy,
                              const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                              const float* __restrict__ stats, Params p) {
  constexpr int KEYS = flash::WARPS * 16 * I, PITCH = flash::PITCH<D>, J = QUERIES / 8;
  constexpr int STATS = QUERIES * 8, STAGE = 2 * QUERIES * PITCH + STATS;  // bytes
  static_assert(STATS / 16 <= flash::THREADS, "one copy a thread");
  DYN_SMEM(dynamic);
  const int h = blockIdx.y, n = blockIdx.z, lane = threadIdx.x % 32;
  const int block = blockIdx.x * KEYS, own = threadIdx.x / 32 * 16 * I, first = block + own;
  const size_t width = static_cast<size_t>(p.heads) * p.d;
  const size_t at = static_cast<size_t>(n) * p.tq * width + h * p.d;
  const size_t source = static_cast<size_t>(n) * p.tk * width + h * p.d;
  const flash::Rows<const T> queries{q + at, width, p.tq, p.d}, cotangents{dy + at, width, p.tq, p.d},
      keys{k + source, width, p.tk, p.d}, values{v + source, width, p.tk, p.d};
  stats += (static_cast<size_t>(n) * p.heads + h) * p.padded * 2;  // (padded, 2) this head's
  const u32 k_tile = arch::smem_u32(dynamic);  // (KEYS, D)
  const u32 v_tile = k_tile + KEYS * PITCH;    // (KEYS, D)
  const u32 tiles = v_tile + KEYS * PITCH;     // two of (QUERIES of q, QUERIES of dy, QUERIES pairs of stats)

  const auto load = [&](int stage, int start) {
    const u32 q_tile = tiles + stage * STAGE, stats_tile = q_tile + 2 * QUERIES * PITCH;
    flash::load<D, QUERIES>(q_tile, queries, start);
    flash::load<D, QUERIES>(q_tile + QUERIES * PITCH, cotangents, start);
    if (threadIdx.x < STATS / 16) {
      arch::cp_async16(stats_tile + threadIdx.x * 16, stats + start * 2 + threadIdx.x * 4, true);
    }
    arch::cp_async_commit();
  };
  float key_sums[D / 16][I][2][4], value_sums[D / 16][I][2][4];
  flash::zero(key_sums);
  flash::zero(value_sums);
  const int begin = p.causal ? block / QUERIES * QUERIES : 0;
  flash::load<D, KEYS>(k_tile, keys, block);
  flash::load<D, KEYS>(v_tile, values, block);
  load(0, begin);

  for (int start = begin, stage = 0; start < p.tq; start += QUERIES, stage ^= 1) {
    const u32 q_tile = tiles + stage * STAGE, dy_tile = q_tile + QUERIES * PITCH;
    arch::cp_async_wait<0>();
    __syncthreads();  // the tile is there; the other one is no longer in use
    if (start + QUERIES < p.tq) load(stage ^ 1, start + QUERIES);

    float s[I][J][4], ds[I][J][4];
    flash::scores<T, D>(s, k_tile + own * PITCH, q_tile);
    flash::scores<T, D>(ds, v_tile + own * PITCH, dy_tile);
    const bool hides = p.causal && start < first + 16 * I;  // some keys from some queries
    const auto* const pairs = reinterpret_cast<const Pack<float, 4>*>(dynamic + (dy_tile - k_tile) + QUERIES * PITCH);
#pragma unroll
    for (int j = 0; j < J; ++j) {
      const Pack<float, 4> two = pairs[j * 4 + lane % 4];  // of this lane's two queries
#pragma unroll
      for (int e = 0; e < 4 * I; ++e) {
        const int query = start + j * 8 + lane % 4 * 2 + e % 2, key = first + e / 4 * 16 + e / 2 % 2 * 8 + lane / 4;
        float &weight = s[e / 4][j][e % 4], &x = ds[e / 4][j][e % 4];
        weight = arch::ex2(p.scale_log2e * weight - two.v[e % 2 * 2]);
        if (hides && query < key) weight = 0.0f;
        x = weight * (x - two.v[e % 2 * 2 + 1]);
      }
    }
    u32 operand[J / 2][I][4];
    flash::pack<T>(operand, s);
    flash::accumulate<T, D>(value_sums, operand, dy_tile);
    flash::pack<T>(operand, ds);
    flash::accumulate<T, D>(key_sums, operand, q_tile);
  }
  flash::scale(key_sums, p.scale);
  flash::store<T, D>(flash::Rows<T>{dk + source, width, p.tk, p.d}, first, dynamic + own * PITCH, key_sums);
  flash::store<T, D>(flash::Rows<T>{dv + source, width, p.tk, p.d}, first, dynamic + (KEYS + own) * PITCH, value_sums);
}

}  // namespace

// For head dims to D: 64 I keys a block against tiles of QUERIES queries.
#define ENTRY(T, dtype, D, I, QUERIES)                                                                               \
  extern "C" __global__ void __launch_bounds__(128) attention_vjp_kv_2_flash_d##D##_##dtype(                         \
      T* dk, T* dv, const T* dy, const T* q, const T* k, const T* v, const float* stats, Params p) {                 \
    attention_vjp_kv<T, D, I, QUERIES>(dk, dv, dy, q, k, v, stats, p);                                               \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_vjp_kv_2_flash_d##D##_##dtype)
#define ENTRIES(T, dtype) \
  ENTRY(T, dtype, 48, 2, 32) ENTRY(T, dtype, 64, 2, 32) ENTRY(T, dtype, 80, 1, 32) ENTRY(T, dtype, 160, 1, 16)
FOR_EACH_HALF(ENTRIES)
