// Layer normalisation: xhat = (x - mean) rstd, y = xhat w + b, each row by itself.
//
// y, x: [rows, c]; mean, rstd: f32 [rows]; w, b: f32 [c].
// One warp a row, which looks at x three times: the mean, the squared deviations from it, the result. Any sizes.
#include "reduce.cuh"

namespace {

struct Params {
  int rows, c;
  float eps;
};

template <class T>
ARCH_FN void layer_norm(T* __restrict__ y, float* __restrict__ mean, float* __restrict__ rstd, const T* __restrict__ x,
                        const float* __restrict__ w, const float* __restrict__ b, Params p) {
  const int lane = threadIdx.x % reduce::WARP;
  const size_t row = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) / reduce::WARP;
  if (row >= static_cast<size_t>(p.rows)) return;  // the whole warp; no barrier follows
  x += row * p.c;                                  // (c) this warp's row
  y += row * p.c;                                  // (c) this warp's row

  float sum = 0.0f;
  for (int i = lane; i < p.c; i += reduce::WARP) sum += arch::to_f32(x[i]);
  const float mu = reduce::warp_sum(sum) / p.c;

  float squares = 0.0f;
  for (int i = lane; i < p.c; i += reduce::WARP) {
    const float deviation = arch::to_f32(x[i]) - mu;
    squares += deviation * deviation;
  }
  const float r = 1.0f / sqrtf(reduce::warp_sum(squares) / p.c + p.eps);

  if (lane == 0) {
    mean[row] = mu;
    rstd[row] = r;
  }
  for (int i = lane; i < p.c; i += reduce::WARP) {
    y[i] = arch::from_f32<T>((arch::to_f32(x[i]) - mu) * r * w[i] + b[i]);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                          \
  extern "C" __global__ void __launch_bounds__(256)                                                              \
      layer_norm_fwd_1_plain_##dtype(T* y, float* mean, float* rstd, const T* x, const float* w, const float* b, \
          Params p) {                                                                                            \
    layer_norm(y, mean, rstd, x, w, b, p);                                                                       \
  }                                                                                                              \
  REGISTER_KERNEL(layer_norm_fwd_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
