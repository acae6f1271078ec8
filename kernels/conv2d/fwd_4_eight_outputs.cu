// y[p, o] = bias[o] + shift[n, o] + residual[p, o] + sum over taps and inputs of x[source(p, tap), i] w[tap, i, o],
// eight outputs a thread
//
// y, residual: [n, ho, wo, o], x: [n, h, w, i], w: [k, k, i, o], bias: [o], shift: [n, o]. A thread owns eight outputs
// side by side of one pixel: a value of x serves all of them, and weights and outputs move 16 bytes at once. For the
// few inputs of a network's first layer, and for float. Any number of inputs; the outputs are a multiple of 8.
#include "tile.cuh"

namespace {

struct Params {
  int samples, x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

template <class T>
ARCH_FN void forward(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w,
                     const float* __restrict__ bias, const T* __restrict__ shift, const T* __restrict__ residual,
                     const Params& p) {
  const int pixels = p.y_height * p.y_width, pieces = p.outputs / tile::PIECE;
  const int i = blockIdx.x * blockDim.x + threadIdx.x, pixel = i / pieces, o = i % pieces * tile::PIECE;
  if (pixel >= pixels) return;
  const size_t n = blockIdx.y, at = (n * pixels + pixel) * p.outputs + o;
  const int row = pixel / p.y_width, col = pixel % p.y_width;

  float sum[tile::PIECE] = {};
  for (int tap = 0; tap < p.k * p.k; ++tap) {
    const int x_row = row * p.stride + tap / p.k - p.before, x_col = col * p.stride + tap % p.k - p.before;
    if (x_row < 0 || x_row >= p.x_height || x_col < 0 || x_col >= p.x_width) continue;
    const T* const from = x + ((n * p.x_height + x_row) * p.x_width + x_col) * p.inputs;  // (i)
    const T* const weights = w + static_cast<size_t>(tap) * p.inputs * p.outputs + o;     // (i) every o-th
    for (int c = 0; c < p.inputs; ++c) {
      tile::add_piece(sum, weights + static_cast<size_t>(c) * p.outputs, arch::to_f32(from[c]));
    }
  }
  if (bias) tile::add_piece(sum, bias + o);
  if (shift) tile::add_piece(sum, shift + n * p.outputs + o);
  if (residual) tile::add_piece(sum, residual + at);
  tile::store_piece(y + at, sum);
}

}  // namespace

#define ENTRY(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256, 4) conv2d_fwd_4_eight_outputs_##dtype(                            \
      T* y, const T* x, const T* w, const float* bias, const T* shift, const T* residual, Params p) {              \
    forward(y, x, w, bias, shift, residual, p);                                                                    \
  }                                                                                                                \
  REGISTER_KERNEL(conv2d_fwd_4_eight_outputs_##dtype)
FOR_EACH_DTYPE(ENTRY)
