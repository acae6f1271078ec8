// dk = ds^T q and dv = p^T dy, with p = exp(scale q k^T - lse), ds = scale p (dy v^T - delta), by wgmma (sm_90a): p and
// ds stay in registers, transposed.
//
// dk, dv, k, v: [samples, tk, heads * d]; dy, q: [samples, tq, heads * d]; stats: [samples, heads, padded] pairs (lse
// log2 e, delta), see vjp_stats.cu. Causal: key j is seen by the queries from j on. A block takes 128 keys of a head,
// and alone writes their cotangents; tiles of 64 queries pass by, see flash90.cuh. Requires d % 8 == 0, d <= 64,
// padded % 64 == 0.
#include "flash90.cuh"

namespace {

struct Params {
  int heads, d, tq, tk, padded, causal;
  float scale, scale_log2e;
};

constexpr int QUERIES = 64, TILE = QUERIES * flash90::ROW_BYTES;
constexpr int STATS = QUERIES * 8;  // bytes
static_assert(STATS / 16 <= flash90::GROUP, "one copy a thread");
// Of (QUERIES of q, QUERIES of dy, QUERIES pairs of stats and room to the next atom).
using Ring = flash90::Ring<2 * TILE + flash90::ATOM_BYTES>;

// Makes weights p of a tile's scores s, and ds of v dy^T in its place: of a lane's two keys, key and key + 8, with the
// tile's queries from `query` on, whose pairs are `stats`.
ARCH_FN void weigh(float (&s)[1][QUERIES / 8][4], float (&ds)[1][QUERIES / 8][4], const unsigned char* stats, int query,
                   int key, bool causal, float scale_log2e) {
  const int in_four = threadIdx.x % 4;
  const bool hides = causal && query < key + 8;  // some queries from some keys
#pragma unroll
  for (int j = 0; j < QUERIES / 8; ++j) {
    // Of this lane's two queries.
    const Pack<float, 4> two = reinterpret_cast<const Pack<float, 4>*>(stats)[j * 4 + in_four];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float &weight = s[0][j][e], &x = ds[0][j][e];
      weight = arch::ex2(scale_log2e * weight - two.v[e % 2 * 2]);
      if (hides && query + j * 8 + in_four * 2 + e % 2 < key + e / 2 * 8) weight = 0.0f;
      x = weight * (x - two.v[e % 2 * 2 + 1]);
    }
  }
}

template <class T>
ARCH_FN void attention_vjp_kv(T* __restrict__ dk, T* __restrict__ dv, const T* __restrict__ dy,
                              const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                              const float* __restrict__ stats, const Params& p) {
  DYN_SMEM(dynamic);
  const int h = blockIdx.y, n = blockIdx.z, block = blockIdx.x * flash90::ROWS;
  const size_t width = static_cast<size_t>(p.heads) * p.d;
  const size_t at = static_cast<size_t>(n) * p.tq * width + h * p.d;
  const size_t source = static_cast<size_t>(n) * p.tk * width + h * p.d;
  const flash::Rows<const T> queries{q + at, width, p.tq, p.d}, cotangents{dy + at, width, p.tq, p.d},
      keys{k + source, width, p.tk, p.d}, values{v + source, width, p.tk, p.d};
  stats += (static_cast<size_t>(n) * p.heads + h) * p.padded * 2;  // (padded, 2) this head's
  constexpr int OWN_TILE = flash90::ROWS * flash90::ROW_BYTES;
  const u32 k_tile = arch::smem_u32(dynamic), v_tile = k_tile + OWN_TILE;  // (ROWS, D)
  const Ring ring{v_tile + OWN_TILE};
  const int begin = p.causal ? block / QUERIES * QUERIES : 0;  // the first query that sees a key of this block
  const int tiles = (p.tq - begin + QUERIES - 1) / QUERIES;

  flash90::run(
      ring, tiles,
      [&](u32 stage, int i) {
        const int start = begin + i * QUERIES;
        if (i == 0) {
          flash90::load<flash90::ROWS>(k_tile, keys, block);
          flash90::load<flash90::ROWS>(v_tile, values, block);
        }
        flash90::load<QUERIES>(stage, queries, start);
        flash90::load<QUERIES>(stage + TILE, cotangents, start);
        const int copy = threadIdx.x % flash90::GROUP;
        if (copy < STATS / 16) arch::cp_async16(stage + 2 * TILE + copy * 16, stats + start * 2 + copy * 4, true);
      },
      [&] {
        const int first = block + threadIdx.x / 32 * 16, key = first + threadIdx.x % 32 / 4;
        const u32 own = threadIdx.x / flash90::GROUP * flash90::OWN * flash90::ROW_BYTES;
        float s[1][QUERIES / 8][4], ds[1][QUERIES / 8][4];
        u32 k_rows[flash90::D / 16][4], v_rows[flash90::D / 16][4];
        u32 weights[QUERIES / 16][1][4], operand[QUERIES / 16][1][4];
        flash90::Sums key_sums, value_sums;
        flash::zero(key_sums);
        flash::zero(value_sums);
        ring.await(0);  // and with it the keys and values
        flash90::fragments(k_rows, k_tile + own);
        flash90::fragments(v_rows, v_tile + own);
        flash90::multiply(
            ring, tiles,
            [&](int i) {
              flash90::scores<T>(s, k_rows, ring.stage(i));
              flash90::scores<T>(ds, v_rows, ring.stage(i) + TILE);
            },
            [&](int i) {
              const unsigned char* const pairs = dynamic + (ring.stage(i) - k_tile) + 2 * TILE;
              weigh(s, ds, pairs, begin + i * QUERIES, key, p.causal, p.scale_log2e);
            },
            [&] {
              flash::pack<T>(weights, s);
              flash::pack<T>(operand, ds);
            },
            [&](int i) {
              flash90::accumulate<T>(value_sums, weights, ring.stage(i) + TILE);
              flash90::accumulate<T>(key_sums, operand, ring.stage(i));
            });
        flash::scale(key_sums, p.scale);
        flash90::store(flash::Rows<T>{dk + source, width, p.tk, p.d}, first, dynamic, key_sums);
        flash90::store(flash::Rows<T>{dv + source, width, p.tk, p.d}, first, dynamic + OWN_TILE, value_sums);
      });
}

}  // namespace

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(flash90::THREADS, 1) attention_vjp_kv_4_wgmma_##dtype(                \
      T* dk, T* dv, const T* dy, const T* q, const T* k, const T* v, const float* stats, Params p) {                 \
    attention_vjp_kv(dk, dv, dy, q, k, v, stats, p);                                                                 \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_vjp_kv_4_wgmma_##dtype)
FOR_EACH_HALF(ENTRY)
