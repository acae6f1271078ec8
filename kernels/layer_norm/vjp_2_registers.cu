// Backward of layer normalisation: dx = residual + rstd (dxhat - mean(dxhat) - xhat mean(dxhat xhat)), dxhat = dy w,
// the means over the row.
//
// dx, dy, x, residual: [rows, c]; mean, rstd: f32 [rows]; w: f32 [c].
// One warp a row, which it reads once, 16 bytes a lane, and keeps as dxhat and xhat in registers.
// Wants c to be whole 16 bytes, and at most 1280.
#include "reduce.cuh"
#include "vector.cuh"

namespace {

struct Params {
  int rows, c;
};

template <class T>
ARCH_FN void layer_norm(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x,
                        const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ w,
                        const T* __restrict__ residual, Params p) {
  constexpr int N = vec::WIDTH<T>, STRIDE = reduce::WARP * N, PACKS = 1280 / STRIDE;
  const int first = threadIdx.x % reduce::WARP * N;  // this lane's first channel; the next are STRIDE apart
  const size_t row = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) / reduce::WARP;
  if (row >= static_cast<size_t>(p.rows)) return;  // the whole warp; no barrier follows
  x += row * p.c;                                  // (c) this warp's row
  dy += row * p.c;                                 // (c) this warp's row
  dx += row * p.c;                                 // (c) this warp's row
  if (residual) residual += row * p.c;             // (c) this warp's row
  const float mu = mean[row], r = rstd[row];

  float dxhat[PACKS][N] = {}, xhat[PACKS][N] = {};
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    if (first + k * STRIDE < p.c) vec::load(dxhat[k], dy + first + k * STRIDE);
    if (first + k * STRIDE < p.c) vec::load(xhat[k], x + first + k * STRIDE);
  }
  float sum = 0.0f, product = 0.0f;
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    const int c = first + k * STRIDE;
    if (c >= p.c) continue;
    float scale[N];
    vec::load(scale, w + c);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      dxhat[k][i] *= scale[i];
      xhat[k][i] = (xhat[k][i] - mu) * r;
      sum += dxhat[k][i];
      product += dxhat[k][i] * xhat[k][i];
    }
  }
  const float m1 = reduce::warp_sum(sum) / p.c, m2 = reduce::warp_sum(product) / p.c;
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    const int c = first + k * STRIDE;
    if (c >= p.c) continue;
    float more[N] = {};
    if (residual) vec::load(more, residual + c);
#pragma unroll
    for (int i = 0; i < N; ++i) dxhat[k][i] = r * (dxhat[k][i] - m1 - xhat[k][i] * m2) + more[i];
    vec::store(dx + c, dxhat[k]);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                        \
  extern "C" __global__ void __launch_bounds__(256)                                                            \
      layer_norm_vjp_2_registers_##dtype(T* dx, const T* dy, const T* x, const float* mean, const float* rstd, \
          const float* w, const T* residual, Params p) {                                                       \
    layer_norm(dx, dy, x, mean, rstd, w, residual, p);                                                         \
  }                                                                                                            \
  REGISTER_KERNEL(layer_norm_vjp_2_registers_##dtype)
FOR_EACH_DTYPE(ENTRY)
