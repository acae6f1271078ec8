// Backward of layer normalisation: dx = residual + rstd (dxhat - mean(dxhat) - xhat mean(dxhat xhat)), dxhat = dy w,
// the means over the row.
//
// dx, dy, x, residual: [rows, c]; mean, rstd: f32 [rows]; w: f32 [c].
// One warp a row, which looks at dy and x twice: the two sums, the result. Any sizes.
#include "reduce.cuh"

namespace {

struct Params {
  int rows, c;
};

template <class T>
ARCH_FN void layer_norm(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x,
                        const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ w,
                        const T* __restrict__ residual, Params p) {
  const int lane = threadIdx.x % reduce::WARP;
  const size_t row = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) / reduce::WARP;
  if (row >= static_cast<size_t>(p.rows)) return;  // the whole warp; no barrier follows
  x += row * p.c;                                  // (c) this warp's row
  dy += row * p.c;                                 // (c) this warp's row
  dx += row * p.c;                                 // (c) this warp's row
  if (residual) residual += row * p.c;             // (c) this warp's row
  const float mu = mean[row], r = rstd[row];

  float sum = 0.0f, product = 0.0f;
  for (int i = lane; i < p.c; i += reduce::WARP) {
    const float dxhat = arch::to_f32(dy[i]) * w[i];
    sum += dxhat;
    product += dxhat * ((arch::to_f32(x[i]) - mu) * r);
  }
  const float m1 = reduce::warp_sum(sum) / p.c, m2 = reduce::warp_sum(product) / p.c;
  for (int i = lane; i < p.c; i += reduce::WARP) {
    const float dxhat = arch::to_f32(dy[i]) * w[i], xhat = (arch::to_f32(x[i]) - mu) * r;
    const float more = residual ? arch::to_f32(residual[i]) : 0.0f;
    dx[i] = arch::from_f32<T>(r * (dxhat - m1 - xhat * m2) + more);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                    \
  extern "C" __global__ void __launch_bounds__(256)                                                        \
      layer_norm_vjp_1_plain_##dtype(T* dx, const T* dy, const T* x, const float* mean, const float* rstd, \
          const float* w, const T* residual, Params p) {                                                   \
    layer_norm(dx, dy, x, mean, rstd, w, residual, p);                                                     \
  }                                                                                                        \
  REGISTER_KERNEL(layer_norm_vjp_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
