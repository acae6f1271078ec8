// dk = ds^T q and dv = p^T dy, with p = exp(scale q k^T - lse), ds = scale p (dy v^T - delta), delta = sum of dy o.
//
// dk, dv, k, v: [samples, tk, heads * d]; dy, q, o: [samples, tq, heads * d]; lse: [samples, heads, tq], f32. Causal:
// key j is seen by the queries from j on. One warp a key and head: a lane a query for p and ds, which stay in shared
// memory (tq pairs), then a lane a channel for their weighted sums of the queries. Any sizes.
#include "reduce.cuh"

namespace {

struct Params {
  int heads, d, tq, tk, causal;
  float scale;
};

struct Weights {
  float p, ds;
};

template <class T>
ARCH_FN void attention_vjp_kv(T* __restrict__ dk, T* __restrict__ dv, const T* __restrict__ dy,
                              const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                              const T* __restrict__ o, const float* __restrict__ lse, Params p) {
  DYN_SMEM(dynamic);
  Weights* const weights = reinterpret_cast<Weights*>(dynamic);  // (tq)
  const int j = blockIdx.x, h = blockIdx.y, n = blockIdx.z, lane = threadIdx.x;
  const size_t width = static_cast<size_t>(p.heads) * p.d;
  const size_t at = static_cast<size_t>(n) * p.tq * width + h * p.d;
  const size_t source = (static_cast<size_t>(n) * p.tk + j) * width + h * p.d;
  dk += source;  // (d) this key's
  dv += source;  // (d)
  k += source;   // (d)
  v += source;   // (d)
  dy += at;      // (tq, d) this head's, width apart
  q += at;       // (tq, d)
  o += at;       // (tq, d)
  lse += (static_cast<size_t>(n) * p.heads + h) * p.tq;  // (tq)
  const int first = p.causal ? j : 0;

  for (int i = first + lane; i < p.tq; i += reduce::WARP) {
    float score = 0.0f, dp = 0.0f, delta = 0.0f;
    for (int c = 0; c < p.d; ++c) {
      const float dy_ic = arch::to_f32(dy[i * width + c]);
      score += arch::to_f32(q[i * width + c]) * arch::to_f32(k[c]);
      dp += dy_ic * arch::to_f32(v[c]);
      delta += dy_ic * arch::to_f32(o[i * width + c]);
    }
    const float share = expf(p.scale * score - lse[i]);
    weights[i] = {share, p.scale * share * (dp - delta)};
  }
  __syncwarp();  // every lane needs all weights
  for (int c = lane; c < p.d; c += reduce::WARP) {
    float key_sum = 0.0f, value_sum = 0.0f;
    for (int i = first; i < p.tq; ++i) {
      key_sum += weights[i].ds * arch::to_f32(q[i * width + c]);
      value_sum += weights[i].p * arch::to_f32(dy[i * width + c]);
    }
    dk[c] = arch::from_f32<T>(key_sum);
    dv[c] = arch::from_f32<T>(value_sum);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(32) attention_vjp_kv_1_plain_##dtype(                                 \
      T* dk, T* dv, const T* dy, const T* q, const T* k, const T* v, const T* o, const float* lse, Params p) {       \
    attention_vjp_kv(dk, dv, dy, q, k, v, o, lse, p);                                                                \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_vjp_kv_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
