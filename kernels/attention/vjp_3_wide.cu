// dq = ds k, with ds = scale p (dy v^T - delta), p = exp(scale q k^T - lse), as products with p and ds in memory: for
// heads too wide for registers.
//
// dq, dy, q: [samples, tq, heads * d]; k, v: [samples, tk, heads * d], or one sample shared by all; stats: [samples,
// heads, padded] pairs (lse log2 e, delta), see vjp_stats.cu; p, ds (without its scale): [samples, heads, tq, pitch] in
// the storage type, zeros past tk. Causal: query i sees keys 0 to i. Requires d % 8 == 0, pitch % 8 == 0.
#include "product.cuh"

namespace {

struct Params {
  int heads;
  product::Matrix a, b, c;
  int tk, padded, causal;
  float scale, scale_log2e;
};

// p = exp(scale q k^T - lse)
template <class T>
ARCH_FN void weights(T* __restrict__ weights, const T* __restrict__ q, const T* __restrict__ k,
                     const float* __restrict__ stats, const Params& p) {
  weights += product::start(p.c, p.heads);
  q += product::start(p.a, p.heads);
  k += product::start(p.b, p.heads);
  stats += static_cast<size_t>(blockIdx.z) * p.padded * 2;  // (padded, 2)
  product::run<T, false, false>(q, p.a, k, p.b, p.c, p.a.cols, [&](int row, int col, float x, float y) {
    const int seen = p.causal ? row + 1 : p.tk;
    x = col < seen ? arch::ex2(p.scale_log2e * x - stats[row * 2]) : 0.0f;
    y = col + 1 < seen ? arch::ex2(p.scale_log2e * y - stats[row * 2]) : 0.0f;
    product::put(weights, p.c, row, col, x, y);
  });
}

// ds = p (dy v^T - delta)
template <class T>
ARCH_FN void cotangents(T* __restrict__ ds, const T* __restrict__ dy, const T* __restrict__ v,
                        const float* __restrict__ stats, const T* __restrict__ weights, const Params& p) {
  ds += product::start(p.c, p.heads);
  dy += product::start(p.a, p.heads);
  v += product::start(p.b, p.heads);
  weights += product::start(p.c, p.heads);
  stats += static_cast<size_t>(blockIdx.z) * p.padded * 2;  // (padded, 2)
  product::run<T, false, false>(dy, p.a, v, p.b, p.c, p.a.cols, [&](int row, int col, float x, float y) {
    const u32 pair = *reinterpret_cast<const u32*>(weights + static_cast<size_t>(row) * p.c.pitch + col);
    const float delta = stats[row * 2 + 1];
    product::put(ds, p.c, row, col, arch::low2<T>(pair) * (x - delta), arch::high2<T>(pair) * (y - delta));
  });
}

// dq = scale ds k
template <class T>
ARCH_FN void queries(T* __restrict__ dq, const T* __restrict__ ds, const T* __restrict__ k, const Params& p) {
  dq += product::start(p.c, p.heads);
  ds += product::start(p.a, p.heads);
  k += product::start(p.b, p.heads);
  product::run<T, false, true>(ds, p.a, k, p.b, p.c, p.b.rows, [&](int row, int col, float x, float y) {
    product::put(dq, p.c, row, col, p.scale * x, p.scale * y);
  });
}

}  // namespace

#define ENTRIES(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256)                                                                  \
      attention_vjp_3_wide_weights_##dtype(T* w, const T* q, const T* k, const float* stats, Params p) {             \
    weights(w, q, k, stats, p);                                                                                      \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_vjp_3_wide_weights_##dtype)                                                              \
  extern "C" __global__ void __launch_bounds__(256) attention_vjp_3_wide_cotangents_##dtype(                         \
      T* ds, const T* dy, const T* v, const float* stats, const T* w, Params p) {                                    \
    cotangents(ds, dy, v, stats, w, p);                                                                              \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_vjp_3_wide_cotangents_##dtype)                                                           \
  extern "C" __global__ void __launch_bounds__(256)                                                                  \
      attention_vjp_3_wide_queries_##dtype(T* dq, const T* ds, const T* k, Params p) {                               \
    queries(dq, ds, k, p);                                                                                           \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_vjp_3_wide_queries_##dtype)
FOR_EACH_HALF(ENTRIES)
