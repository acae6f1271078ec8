// Gradients of the affine parameters of layer normalisation: dw = sum of dy xhat, db = sum of dy over all rows.
//
// dw, db: f32 [c]; dy, x: [rows, c]; mean, rstd: f32 [rows]. One block a channel. Any sizes. Grid: c.
#include "reduce.cuh"

namespace {

struct Params {
  int rows, c;
};

template <class T>
ARCH_FN void wgrad(float* __restrict__ dw, float* __restrict__ db, const T* __restrict__ dy, const T* __restrict__ x,
                   const float* __restrict__ mean, const float* __restrict__ rstd, Params p) {
  SHARED_ARRAY(float, part, reduce::MAX_WARPS);
  const int c = blockIdx.x;
  float product = 0.0f, sum = 0.0f;
  for (int row = threadIdx.x; row < p.rows; row += blockDim.x) {
    const size_t at = static_cast<size_t>(row) * p.c + c;
    product += arch::to_f32(dy[at]) * ((arch::to_f32(x[at]) - mean[row]) * rstd[row]);
    sum += arch::to_f32(dy[at]);
  }
  product = reduce::block_sum(product, part);
  sum = reduce::block_sum(sum, part);
  if (threadIdx.x == 0) {
    dw[c] = product;
    db[c] = sum;
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                  \
  extern "C" __global__ void __launch_bounds__(256)                                                      \
      layer_norm_wgrad_1_plain_##dtype(float* dw, float* db, const T* dy, const T* x, const float* mean, \
          const float* rstd, Params p) {                                                                 \
    wgrad(dw, db, dy, x, mean, rstd, p);                                                                 \
  }                                                                                                      \
  REGISTER_KERNEL(layer_norm_wgrad_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
