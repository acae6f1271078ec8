// Layer normalisation: xhat = (x - mean) rstd, y = xhat w + b, each row by itself.
//
// y, x: [rows, c]; mean, rstd: f32 [rows]; w, b: f32 [c].
// One warp a row, which it reads once, 16 bytes a lane, and keeps in registers for both sums and the result.
// Wants c to be whole 16 bytes, and at most 1280.
#include "reduce.cuh"
#include "vector.cuh"

namespace {

struct Params {
  int rows, c;
  float eps;
};

template <class T>
ARCH_FN void layer_norm(T* __restrict__ y, float* __restrict__ mean, float* __restrict__ rstd, const T* __restrict__ x,
                        const float* __restrict__ w, const float* __restrict__ b, Params p) {
  constexpr int N = vec::WIDTH<T>, STRIDE = reduce::WARP * N, PACKS = 1280 / STRIDE;
  const int first = threadIdx.x % reduce::WARP * N;  // this lane's first channel; the next are STRIDE apart
  const size_t row = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) / reduce::WARP;
  if (row >= static_cast<size_t>(p.rows)) return;  // the whole warp; no barrier follows
  x += row * p.c;                                  // (c) this warp's row
  y += row * p.c;                                  // (c) this warp's row

  float v[PACKS][N] = {};
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    if (first + k * STRIDE < p.c) vec::load(v[k], x + first + k * STRIDE);
  }
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < PACKS; ++k)
#pragma unroll
    for (int i = 0; i < N; ++i) sum += v[k][i];
  const float mu = reduce::warp_sum(sum) / p.c;

  float squares = 0.0f;
#pragma unroll
  for (int k = 0; k < PACKS; ++k)
#pragma unroll
    for (int i = 0; i < N; ++i) {
      v[k][i] -= mu;
      if (first + k * STRIDE < p.c) squares += v[k][i] * v[k][i];
    }
  const float r = 1.0f / sqrtf(reduce::warp_sum(squares) / p.c + p.eps);

  if (first == 0) {
    mean[row] = mu;
    rstd[row] = r;
  }
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    const int c = first + k * STRIDE;
    if (c >= p.c) continue;
    float scale[N], shift[N];
    vec::load(scale, w + c);
    vec::load(shift, b + c);
#pragma unroll
    for (int i = 0; i < N; ++i) v[k][i] = v[k][i] * r * scale[i] + shift[i];
    vec::store(y + c, v[k]);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                              \
  extern "C" __global__ void __launch_bounds__(256)                                                  \
      layer_norm_fwd_2_registers_##dtype(T* y, float* mean, float* rstd, const T* x, const float* w, \
          const float* b, Params p) {                                                                \
    layer_norm(y, mean, rstd, x, w, b, p);                                                           \
  }                                                                                                  \
  REGISTER_KERNEL(layer_norm_fwd_2_registers_##dtype)
FOR_EACH_DTYPE(ENTRY)
