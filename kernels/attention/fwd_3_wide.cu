// o = softmax(scale q k^T) v for each head, and lse, as two products with the scores and probabilities in memory: for
// heads too wide for registers.
//
// o, q: [samples, tq, heads * d]; k, v: [samples, tk, heads * d], or one sample shared by all; lse: [samples, heads,
// tq], f32; scores: [samples, heads, tq, pitch], f32 (16 bits would lose .1 at 30); p: the same in the storage type,
// zeros past tk. Causal: query i sees keys 0 to i. Requires d % 8 == 0, pitch % 8 == 0.
#include "product.cuh"
#include "reduce.cuh"

namespace {

struct Product {
  int heads;
  product::Matrix a, b, c;
};

// scores = q k^T
template <class T>
ARCH_FN void scores(float* __restrict__ scores, const T* __restrict__ q, const T* __restrict__ k, const Product& p) {
  scores += product::start(p.c, p.heads);
  q += product::start(p.a, p.heads);
  k += product::start(p.b, p.heads);
  product::run<T, false, false>(q, p.a, k, p.b, p.c, p.a.cols, [&](int row, int col, float x, float y) {
    product::put(scores, p.c, row, col, x, y);
  });
}

// o = p v
template <class T>
ARCH_FN void values(T* __restrict__ o, const T* __restrict__ weights, const T* __restrict__ v, const Product& p) {
  o += product::start(p.c, p.heads);
  weights += product::start(p.a, p.heads);
  v += product::start(p.b, p.heads);
  product::run<T, false, true>(weights, p.a, v, p.b, p.c, p.b.rows, [&](int row, int col, float x, float y) {
    product::put(o, p.c, row, col, x, y);
  });
}

struct Softmax {
  int rows, tq, tk, pitch, causal;
  float scale;
};

// p = softmax(scale scores) and lse, for each row: one warp a row, maximum and sum in one pass, each lane rescaling its
// sum when its maximum grows.
template <class T>
ARCH_FN void softmax(T* __restrict__ weights, float* __restrict__ lse, const float* __restrict__ scores,
                     const Softmax& p) {
  const int lane = threadIdx.x % reduce::WARP;
  const int row = blockIdx.x * (blockDim.x / reduce::WARP) + threadIdx.x / reduce::WARP;
  if (row >= p.rows) return;
  scores += static_cast<size_t>(row) * p.pitch;   // (pitch)
  weights += static_cast<size_t>(row) * p.pitch;  // (pitch)
  const int seen = p.causal ? row % p.tq + 1 : p.tk;

  float most = scores[0], total = 0.0f;
  for (int j = lane; j < seen; j += reduce::WARP) {
    const float now = fmaxf(most, scores[j]);
    total = total * expf(p.scale * (most - now)) + expf(p.scale * (scores[j] - now));
    most = now;
  }
  const float largest = reduce::warp_max(most);
  total = reduce::warp_sum(total * expf(p.scale * (most - largest)));
  const float share = 1.0f / total;
  for (int j = lane * 2; j < p.pitch; j += reduce::WARP * 2) {
    const float x = j < seen ? expf(p.scale * (scores[j] - largest)) * share : 0.0f;
    const float y = j + 1 < seen ? expf(p.scale * (scores[j + 1] - largest)) * share : 0.0f;
    *reinterpret_cast<u32*>(weights + j) = arch::pack2<T>(x, y);
  }
  if (lane == 0) lse[row] = p.scale * largest + logf(total);
}

}  // namespace

#define ENTRIES(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256)                                                                  \
      attention_fwd_3_wide_scores_##dtype(float* s, const T* q, const T* k, Product p) {                             \
    scores(s, q, k, p);                                                                                              \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_fwd_3_wide_scores_##dtype)                                                               \
  extern "C" __global__ void __launch_bounds__(128)                                                                  \
      attention_fwd_3_wide_softmax_##dtype(T* weights, float* lse, const float* s, Softmax p) {                      \
    softmax(weights, lse, s, p);                                                                                     \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_fwd_3_wide_softmax_##dtype)                                                              \
  extern "C" __global__ void __launch_bounds__(256)                                                                  \
      attention_fwd_3_wide_values_##dtype(T* o, const T* weights, const T* v, Product p) {                           \
    values(o, weights, v, p);                                                                                        \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_fwd_3_wide_values_##dtype)
FOR_EACH_HALF(ENTRIES)
