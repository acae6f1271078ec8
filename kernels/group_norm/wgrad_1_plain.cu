// Gradients of the affine parameters of group normalisation: dw = sum of du xhat, db = sum of du over samples and pixels,
// with du = dy, or dy times the slope of SiLU at u = xhat w + b when `silu`.
//
// dw, db, w, b: f32 [c]; dy, x: [n, pixels, c]; mean, rstd: f32 [n, groups]. One block a channel. Any sizes. Grid: c.
#include "math.cuh"
#include "reduce.cuh"

namespace {

struct Params {
  int samples, pixels, c, groups, silu;
};

template <class T>
ARCH_FN void wgrad(float* __restrict__ dw, float* __restrict__ db, const T* __restrict__ dy, const T* __restrict__ x,
                   const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ w,
                   const float* __restrict__ b, Params p) {
  SHARED_ARRAY(float, part, reduce::MAX_WARPS);
  const int c = blockIdx.x;
  float product = 0.0f, sum = 0.0f;
  for (int sample = 0; sample < p.samples; ++sample) {
    const size_t group = static_cast<size_t>(sample) * p.groups + c / (p.c / p.groups);
    for (int pixel = threadIdx.x; pixel < p.pixels; pixel += blockDim.x) {
      const size_t at = (static_cast<size_t>(sample) * p.pixels + pixel) * p.c + c;
      const float xhat = (arch::to_f32(x[at]) - mean[group]) * rstd[group];
      float du = arch::to_f32(dy[at]);
      if (p.silu) du *= math::silu_slope(xhat * w[c] + b[c]);
      product += du * xhat;
      sum += du;
    }
  }
  product = reduce::block_sum(product, part);
  sum = reduce::block_sum(sum, part);
  if (threadIdx.x == 0) {
    dw[c] = product;
    db[c] = sum;
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                               \
  extern "C" __global__ void __launch_bounds__(256)                                                                   \
      group_norm_wgrad_1_plain_##dtype(float* dw, float* db, const T* dy, const T* x, const float* mean,              \
          const float* rstd, const float* w, const float* b, Params p) {                                              \
    wgrad(dw, db, dy, x, mean, rstd, w, b, p);                                                                        \
  }                                                                                                                   \
  REGISTER_KERNEL(group_norm_wgrad_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
