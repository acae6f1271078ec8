// dq = ds k, with ds = scale p (dy v^T - delta), p = exp(scale q k^T - lse), by wgmma (sm_90a): p and ds stay in
// registers.
//
// dq, dy, q: [samples, tq, heads * d]; k, v: [samples, tk, heads * d], or one sample shared by all; stats: [samples,
// heads, padded] pairs (lse log2 e, delta), see vjp_stats.cu. Causal: query i sees keys 0 to i. A block takes 128
// queries of a head; tiles of 128 keys and values pass by, see flash90.cuh. Requires d % 8 == 0, d <= 64,
// padded % 128 == 0.
#include "flash90.cuh"

namespace {

struct Params {
  int heads, d, tq, tk, padded, shared, causal;
  float scale, scale_log2e;
};

constexpr int KEYS = 128, TILE = KEYS * flash90::ROW_BYTES;
using Ring = flash90::Ring<2 * TILE>;  // of (KEYS of k, KEYS of v)

template <class T>
ARCH_FN void attention_vjp(T* __restrict__ dq, const T* __restrict__ dy, const T* __restrict__ q,
                           const T* __restrict__ k, const T* __restrict__ v, const float* __restrict__ stats,
                           const Params& p) {
  DYN_SMEM(dynamic);
  const int h = blockIdx.y, n = blockIdx.z, block = blockIdx.x * flash90::ROWS;
  const size_t width = static_cast<size_t>(p.heads) * p.d;
  const size_t at = static_cast<size_t>(n) * p.tq * width + h * p.d;
  const size_t source = (p.shared ? 0 : static_cast<size_t>(n)) * p.tk * width + h * p.d;
  const flash::Rows<const T> queries{q + at, width, p.tq, p.d}, cotangents{dy + at, width, p.tq, p.d},
      keys{k + source, width, p.tk, p.d}, values{v + source, width, p.tk, p.d};
  const u32 q_tile = arch::smem_u32(dynamic);                            // (ROWS, D)
  const u32 dy_tile = q_tile + flash90::ROWS * flash90::ROW_BYTES;       // (ROWS, D)
  const Ring ring{dy_tile + flash90::ROWS * flash90::ROW_BYTES};
  const int last = p.causal ? min(p.tk, block + flash90::ROWS) : p.tk;  // keys that this block sees
  const int tiles = (last + KEYS - 1) / KEYS;

  flash90::run(
      ring, tiles,
      [&](u32 stage, int i) {
        if (i == 0) {
          flash90::load<flash90::ROWS>(q_tile, queries, block);
          flash90::load<flash90::ROWS>(dy_tile, cotangents, block);
        }
        flash90::load<KEYS>(stage, keys, i * KEYS);
        flash90::load<KEYS>(stage + TILE, values, i * KEYS);
      },
      [&] {
        const int first = block + threadIdx.x / 32 * 16, row = first + threadIdx.x % 32 / 4;
        const u32 own = threadIdx.x / flash90::GROUP * flash90::OWN * flash90::ROW_BYTES;
        const auto* const of_head =
            reinterpret_cast<const Pack<float, 2>*>(stats) + (static_cast<size_t>(n) * p.heads + h) * p.padded;
        const Pack<float, 2> of_row[2] = {of_head[row], of_head[row + 8]};
        float s[1][KEYS / 8][4], ds[1][KEYS / 8][4];
        u32 operand[KEYS / 16][1][4];
        flash90::Sums sums;
        flash::zero(sums);
        flash90::multiply(
            ring, tiles,
            [&](int i) {
              flash90::scores<T>(s, q_tile + own, ring.stage(i));
              flash90::scores<T>(ds, dy_tile + own, ring.stage(i) + TILE);
            },
            [&](int i) {
              flash::hide(s, first, i * KEYS, p.tk, p.causal);
#pragma unroll
              for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                  const float weight = arch::ex2(p.scale_log2e * s[0][j][e] - of_row[e / 2].v[0]);
                  ds[0][j][e] = weight * (ds[0][j][e] - of_row[e / 2].v[1]);
                }
            },
            [&] { flash::pack<T>(operand, ds); },
            [&](int i) { flash90::accumulate<T>(sums, operand, ring.stage(i)); });
        flash::scale(sums, p.scale);
        flash90::store(flash::Rows<T>{dq + at, width, p.tq, p.d}, first, dynamic, sums);
      });
}

}  // namespace

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(flash90::THREADS, 1) attention_vjp_4_wgmma_##dtype(                   \
      T* dq, const T* dy, const T* q, const T* k, const T* v, const float* stats, Params p) {                        \
    attention_vjp(dq, dy, q, k, v, stats, p);                                                                        \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_vjp_4_wgmma_##dtype)
FOR_EACH_HALF(ENTRY)
