// dx[q, i] = bias[i] + sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o]
//
// dx: [n, h, w, i], dy: [n, ho, wo, o], w: [k, k, i, o], bias: [i]; target(q, tap) is the output pixel that meets input
// pixel q at this tap, if there is one. One thread an element of dx, neighbours along i. Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int samples, x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

template <class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const float* __restrict__ bias,
                 const Params& p) {
  const size_t pixels = static_cast<size_t>(p.x_height) * p.x_width;
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p.samples * pixels * p.inputs) return;
  const int c = static_cast<int>(i % p.inputs);
  const size_t pixel = i / p.inputs, n = pixel / pixels;
  const int row = static_cast<int>(pixel % pixels) / p.x_width, col = static_cast<int>(pixel % pixels) % p.x_width;

  float sum = 0.0f;
  for (int tap = 0; tap < p.k * p.k; ++tap) {
    const int from_row = row + p.before - tap / p.k, from_col = col + p.before - tap % p.k;  // in strides of y
    if (from_row < 0 || from_col < 0 || from_row % p.stride != 0 || from_col % p.stride != 0) continue;
    const int y_row = from_row / p.stride, y_col = from_col / p.stride;
    if (y_row >= p.y_height || y_col >= p.y_width) continue;
    const T* const from = dy + ((n * p.y_height + y_row) * p.y_width + y_col) * p.outputs;       // (o)
    const T* const weights = w + (static_cast<size_t>(tap) * p.inputs + c) * p.outputs;          // (o)
    for (int o = 0; o < p.outputs; ++o) sum += arch::to_f32(from[o]) * arch::to_f32(weights[o]);
  }
  if (bias) sum += bias[c];
  dx[i] = arch::from_f32<T>(sum);
}

}  // namespace

#define ENTRY(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256)                                                                \
      conv2d_vjp_1_plain_##dtype(T* dx, const T* dy, const T* w, const float* bias, Params p) {                    \
    vjp(dx, dy, w, bias, p);                                                                                       \
  }                                                                                                                \
  REGISTER_KERNEL(conv2d_vjp_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
