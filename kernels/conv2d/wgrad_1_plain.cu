// dw[tap, i, o] = sum over samples and pixels p of x[source(p, tap), i] dy[p, o]
//
// dw: [k, k, i, o] in float, x: [n, h, w, i], dy: [n, ho, wo, o]; source(p, tap) is the input pixel that output pixel p
// meets at this tap, if it is inside the image. One thread an element of dw, neighbours along o. Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int samples, x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

template <class T>
ARCH_FN void wgrad(float* __restrict__ dw, const T* __restrict__ x, const T* __restrict__ dy, const Params& p) {
  const size_t e = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e >= static_cast<size_t>(p.k) * p.k * p.inputs * p.outputs) return;
  const int o = static_cast<int>(e % p.outputs), i = static_cast<int>(e / p.outputs % p.inputs);
  const int tap = static_cast<int>(e / p.outputs / p.inputs), tap_row = tap / p.k, tap_col = tap % p.k;

  float sum = 0.0f;
  for (size_t n = 0; n < static_cast<size_t>(p.samples); ++n) {
    for (int y_row = 0; y_row < p.y_height; ++y_row) {
      const int row = y_row * p.stride + tap_row - p.before;
      if (row < 0 || row >= p.x_height) continue;
      const T* const from = x + (n * p.x_height + row) * p.x_width * p.inputs + i;           // (w) every i-th
      const T* const cotangent = dy + (n * p.y_height + y_row) * p.y_width * p.outputs + o;  // (wo) every o-th
      for (int y_col = 0; y_col < p.y_width; ++y_col) {
        const int col = y_col * p.stride + tap_col - p.before;
        if (col < 0 || col >= p.x_width) continue;
        sum += arch::to_f32(from[static_cast<size_t>(col) * p.inputs]) *
               arch::to_f32(cotangent[static_cast<size_t>(y_col) * p.outputs]);
      }
    }
  }
  dw[e] = sum;
}

}  // namespace

#define ENTRY(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256)                                                                \
      conv2d_wgrad_1_plain_##dtype(float* dw, const T* x, const T* dy, Params p) {                                 \
    wgrad(dw, x, dy, p);                                                                                           \
  }                                                                                                                \
  REGISTER_KERNEL(conv2d_wgrad_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
