// o = softmax(scale q k^T) v for each head, and lse, the logarithm of each softmax's denominator.
//
// o, q: [samples, tq, heads * d]; k, v: [samples, tk, heads * d], or one sample shared by all; lse: [samples, heads,
// tq], f32. Causal: query i sees keys 0 to i. One warp a query and head: a lane a key for the scores, which stay in
// shared memory (tk floats), then a lane a channel for the weighted sum of the values. Any sizes.
#include "reduce.cuh"

namespace {

struct Params {
  int heads, d, tq, tk, shared, causal;
  float scale;
};

template <class T>
ARCH_FN void attention(T* __restrict__ o, float* __restrict__ lse, const T* __restrict__ q, const T* __restrict__ k,
                       const T* __restrict__ v, Params p) {
  DYN_SMEM(dynamic);
  float* const scores = reinterpret_cast<float*>(dynamic);  // (tk)
  const int i = blockIdx.x, h = blockIdx.y, n = blockIdx.z, lane = threadIdx.x;
  const size_t width = static_cast<size_t>(p.heads) * p.d;
  const size_t at = (static_cast<size_t>(n) * p.tq + i) * width + h * p.d;
  const size_t source = (p.shared ? 0 : static_cast<size_t>(n)) * p.tk * width + h * p.d;
  q += at;      // (d) this query
  o += at;      // (d)
  k += source;  // (tk, d) this head's, width apart
  v += source;  // (tk, d)
  const int seen = p.causal ? i + 1 : p.tk;

  float most = __uint_as_float(0xff800000u);  // -infinity
  for (int j = lane; j < seen; j += reduce::WARP) {
    float dot = 0.0f;
    for (int c = 0; c < p.d; ++c) dot += arch::to_f32(q[c]) * arch::to_f32(k[j * width + c]);
    scores[j] = p.scale * dot;
    most = fmaxf(most, scores[j]);
  }
  most = reduce::warp_max(most);
  float total = 0.0f;
  for (int j = lane; j < seen; j += reduce::WARP) {
    scores[j] = expf(scores[j] - most);
    total += scores[j];
  }
  total = reduce::warp_sum(total);
  __syncwarp();  // every lane needs all scores
  for (int c = lane; c < p.d; c += reduce::WARP) {
    float sum = 0.0f;
    for (int j = 0; j < seen; ++j) sum += scores[j] * arch::to_f32(v[j * width + c]);
    o[c] = arch::from_f32<T>(sum / total);
  }
  if (lane == 0) lse[(static_cast<size_t>(n) * p.heads + h) * p.tq + i] = most + logf(total);
}

}  // namespace

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(32)                                                                   \
      attention_fwd_1_plain_##dtype(T* o, float* lse, const T* q, const T* k, const T* v, Params p) {                \
    attention(o, lse, q, k, v, p);                                                                                   \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_fwd_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
