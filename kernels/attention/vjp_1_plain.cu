// dq = ds k, with ds = scale p (dy v^T - delta), p = exp(scale q k^T - lse), delta = sum over d of dy o.
//
// dq, dy, q, o: [samples, tq, heads * d]; k, v: [samples, tk, heads * d], or one sample shared by all; lse: [samples,
// heads, tq], f32. Causal: query i sees keys 0 to i. One warp a query and head: a lane a key for ds, which stays in
// shared memory (tk floats), then a lane a channel for its weighted sum of the keys. Any sizes.
#include "reduce.cuh"

namespace {

struct Params {
  int heads, d, tq, tk, shared, causal;
  float scale;
};

template <class T>
ARCH_FN void attention_vjp(T* __restrict__ dq, const T* __restrict__ dy, const T* __restrict__ q,
                           const T* __restrict__ k, const T* __restrict__ v, const T* __restrict__ o,
                           const float* __restrict__ lse, Params p) {
  DYN_SMEM(dynamic);
  float* const ds = reinterpret_cast<float*>(dynamic);  // (tk)
  const int i = blockIdx.x, h = blockIdx.y, n = blockIdx.z, lane = threadIdx.x;
  const size_t width = static_cast<size_t>(p.heads) * p.d;
  const size_t at = (static_cast<size_t>(n) * p.tq + i) * width + h * p.d;
  const size_t source = (p.shared ? 0 : static_cast<size_t>(n)) * p.tk * width + h * p.d;
  dq += at;     // (d) this query's
  dy += at;     // (d)
  q += at;      // (d)
  o += at;      // (d)
  k += source;  // (tk, d) this head's, width apart
  v += source;  // (tk, d)
  const float lse_i = lse[(static_cast<size_t>(n) * p.heads + h) * p.tq + i];
  const int seen = p.causal ? i + 1 : p.tk;

  float delta = 0.0f;
  for (int c = lane; c < p.d; c += reduce::WARP) delta += arch::to_f32(dy[c]) * arch::to_f32(o[c]);
  delta = reduce::warp_sum(delta);
  for (int j = lane; j < seen; j += reduce::WARP) {
    float score = 0.0f, dp = 0.0f;
    for (int c = 0; c < p.d; ++c) {
      score += arch::to_f32(q[c]) * arch::to_f32(k[j * width + c]);
      dp += arch::to_f32(dy[c]) * arch::to_f32(v[j * width + c]);
    }
    ds[j] = p.scale * expf(p.scale * score - lse_i) * (dp - delta);
  }
  __syncwarp();  // every lane needs all of ds
  for (int c = lane; c < p.d; c += reduce::WARP) {
    float sum = 0.0f;
    for (int j = 0; j < seen; ++j) sum += ds[j] * arch::to_f32(k[j * width + c]);
    dq[c] = arch::from_f32<T>(sum);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(32) attention_vjp_1_plain_##dtype(                                    \
      T* dq, const T* dy, const T* q, const T* k, const T* v, const T* o, const float* lse, Params p) {              \
    attention_vjp(dq, dy, q, k, v, o, lse, p);                                                                       \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_vjp_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
