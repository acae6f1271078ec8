// o = softmax(scale q k^T) v for each head, and lse, by wgmma (sm_90a): the scores stay in registers.
//
// o, q: [samples, tq, heads * d]; k, v: [samples, tk, heads * d], or one sample shared by all; lse: [samples, heads,
// tq], f32. Causal: query i sees keys 0 to i. The numerics of fwd_2_flash.cu. A block takes 128 queries of a head;
// tiles of 128 keys and values pass by, see flash90.cuh. Requires d % 8 == 0, d <= 64.
#include "flash90.cuh"

namespace {

struct Params {
  int heads, d, tq, tk, shared, causal;
  float scale_log2e;
};

constexpr int KEYS = 128, TILE = KEYS * flash90::ROW_BYTES;
using Ring = flash90::Ring<2 * TILE>;  // of (KEYS of k, KEYS of v)

template <class T>
ARCH_FN void attention(T* __restrict__ o, float* __restrict__ lse, const T* __restrict__ q, const T* __restrict__ k,
                       const T* __restrict__ v, const Params& p) {
  DYN_SMEM(dynamic);
  const int h = blockIdx.y, n = blockIdx.z, block = blockIdx.x * flash90::ROWS;
  const size_t width = static_cast<size_t>(p.heads) * p.d;
  const size_t at = static_cast<size_t>(n) * p.tq * width + h * p.d;
  const size_t source = (p.shared ? 0 : static_cast<size_t>(n)) * p.tk * width + h * p.d;
  const flash::Rows<const T> queries{q + at, width, p.tq, p.d}, keys{k + source, width, p.tk, p.d},
      values{v + source, width, p.tk, p.d};
  const u32 q_tile = arch::smem_u32(dynamic);  // (ROWS, D)
  const Ring ring{q_tile + flash90::ROWS * flash90::ROW_BYTES};
  const int last = p.causal ? min(p.tk, block + flash90::ROWS) : p.tk;  // keys that this block sees
  const int tiles = (last + KEYS - 1) / KEYS;

  flash90::run(
      ring, tiles,
      [&](u32 stage, int i) {
        if (i == 0) flash90::load<flash90::ROWS>(q_tile, queries, block);
        flash90::load<KEYS>(stage, keys, i * KEYS);
        flash90::load<KEYS>(stage + TILE, values, i * KEYS);
      },
      [&] {
        const int first = block + threadIdx.x / 32 * 16;
        const u32 own = q_tile + threadIdx.x / flash90::GROUP * flash90::OWN * flash90::ROW_BYTES;
        float s[1][KEYS / 8][4], shrink[1][2], share[1][2];
        u32 weights[KEYS / 16][1][4];
        flash90::Sums sums;
        flash::zero(sums);
        flash::Softmax<1> softmax(p.scale_log2e);
        flash90::multiply(
            ring, tiles, [&](int i) { flash90::scores<T>(s, own, ring.stage(i)); },
            [&](int i) {
              flash::hide(s, first, i * KEYS, p.tk, p.causal);
              softmax.weigh(s, shrink);
            },
            [&] {
              flash::scale(sums, shrink);
              flash::pack<T>(weights, s);
              softmax.template count<T>(weights);
            },
            [&](int i) { flash90::accumulate<T>(sums, weights, ring.stage(i) + TILE); });
        softmax.finish(share, lse + (static_cast<size_t>(n) * p.heads + h) * p.tq, first, p.tq);
        flash::scale(sums, share);
        flash90::store(flash::Rows<T>{o + at, width, p.tq, p.d}, first, dynamic, sums);
      });
}

}  // namespace

#define ENTRY(T, dtype)                                                                                     \
  extern "C" __global__ void __launch_bounds__(flash90::THREADS, 1)                                         \
      attention_fwd_4_wgmma_##dtype(T* o, float* lse, const T* q, const T* k, const T* v, Params p) {       \
    attention(o, lse, q, k, v, p);                                                                          \
  }                                                                                                         \
  REGISTER_KERNEL(attention_fwd_4_wgmma_##dtype)
FOR_EACH_HALF(ENTRY)
