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

template <class T, int D, int I, int KEYS>
ARCH_FN void attention(T* __restrict__ o, float* __restrict__ lse, const T* __restrict__ q, const T* __restrict__ k,
                       const T* __restrict__ v, Params p) {
  constexpr int QUERIES = flash::WARPS * 16 * I, PITCH = flash::PITCH<D>, J = KEYS / 8;
  DYN_SMEM(dynamic);
  const int h = blockIdx.y, n = blockIdx.z;
  const int block = blockIdx.x * QUERIES, own = threadIdx.x / 32 * 16 * I, first = block + own;
  const size_t width = static_cast<size_t>(p.heads) * p.d;
  const size_t at = static_cast<size_t>(n) * p.tq * width + h * p.d;
  const size_t source = (p.shared ? 0 : static_cast<size_t>(n)) * p.tk * width + h * p.d;
  const flash::Rows<const T> queries{q + at, width, p.tq, p.d}, keys{k + source, width, p.tk, p.d},
      values{v + source, width, p.tk, p.d};
  const u32 q_tile = arch::smem_u32(dynamic);  // (QUERIES, D)
  const u32 tiles = q_tile + QUERIES * PITCH;  // two of (KEYS of k, KEYS of v)
  const int last = p.causal ? min(p.tk, block + QUERIES) : p.tk;  // keys that this block sees

  float sums[D / 16][I][2][4];
  flash::zero(sums);
  flash::Softmax<I> softmax(p.scale_log2e);
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
    softmax.weigh(s, shrink);
    u32 weights[J / 2][I][4];
    flash::pack<T>(weights, s);
    softmax.template count<T>(weights);
    flash::scale(sums, shrink);
    flash::accumulate<T, D>(sums, weights, v_tile);
  }

  float share[I][2];
  softmax.finish(share, lse + (static_cast<size_t>(n) * p.heads + h) * p.tq, first, p.tq);
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
