// y[p, o] = bias[o] + shift[n, o] + residual[p, o] + sum over taps and inputs of x[source(p, tap), i] w[tap, i, o]
//
// y, residual: [n, ho, wo, o], x: [n, h, w, i], w: [k, k, i, o], bias: [o], shift: [n, o]; source(p, tap) is the input
// pixel that output pixel p meets at this tap, zero outside the image. One thread an output element, neighbours along
// o: they share x and read w side by side. Any sizes. The part `wide` stores y in float.
#include "arch.cuh"

namespace {

struct Params {
  int samples, x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

template <class O, class T>
ARCH_FN void forward(O* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w,
                     const float* __restrict__ bias, const T* __restrict__ shift, const T* __restrict__ residual,
                     const Params& p) {
  const size_t pixels = static_cast<size_t>(p.y_height) * p.y_width;
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p.samples * pixels * p.outputs) return;
  const int o = static_cast<int>(i % p.outputs);
  const size_t pixel = i / p.outputs, n = pixel / pixels;
  const int row = static_cast<int>(pixel % pixels) / p.y_width, col = static_cast<int>(pixel % pixels) % p.y_width;

  float sum = 0.0f;
  for (int tap = 0; tap < p.k * p.k; ++tap) {
    const int x_row = row * p.stride + tap / p.k - p.before, x_col = col * p.stride + tap % p.k - p.before;
    if (x_row < 0 || x_row >= p.x_height || x_col < 0 || x_col >= p.x_width) continue;
    const T* const from = x + ((n * p.x_height + x_row) * p.x_width + x_col) * p.inputs;         // (i)
    const T* const weights = w + static_cast<size_t>(tap) * p.inputs * p.outputs + o;            // (i) every o-th
    for (int c = 0; c < p.inputs; ++c) {
      sum += arch::to_f32(from[c]) * arch::to_f32(weights[static_cast<size_t>(c) * p.outputs]);
    }
  }
  if (bias) sum += bias[o];
  if (shift) sum += arch::to_f32(shift[n * p.outputs + o]);
  if (residual) sum += arch::to_f32(residual[i]);
  y[i] = arch::from_f32<O>(sum);
}

}  // namespace

#define ENTRY_OF(name, O, T)                                                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                                                \
      name(O* y, const T* x, const T* w, const float* bias, const T* shift, const T* residual, Params p) {         \
    forward(y, x, w, bias, shift, residual, p);                                                                    \
  }                                                                                                                \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype) ENTRY_OF(conv2d_fwd_1_plain_##dtype, T, T)
#define ENTRY_WIDE(T, dtype) ENTRY_OF(conv2d_fwd_1_plain_wide_##dtype, float, T)
FOR_EACH_DTYPE(ENTRY)
FOR_EACH_HALF(ENTRY_WIDE)
