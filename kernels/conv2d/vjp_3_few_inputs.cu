// dx[q, i] = sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], for the few inputs of a first layer
//
// dx: [n, h, w, i], dy: [n, ho, wo, o], w: [k, k, i, o]. A warp computes one pixel: its lanes share out the outputs,
// two each, so that dy and w are read side by side; dy is read once for all inputs. At most 8 inputs, an even number of
// outputs.
#include "reduce.cuh"

namespace {

static constexpr int MOST = 8;

struct Params {
  int samples, x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

template <class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const Params& p) {
  const int lane = threadIdx.x % reduce::WARP, pixels = p.x_height * p.x_width;
  const int pixel = blockIdx.x * (blockDim.x / reduce::WARP) + threadIdx.x / reduce::WARP;
  if (pixel >= pixels) return;  // a whole warp
  const size_t n = blockIdx.y;

  float sum[MOST] = {};
  for (int tap = 0; tap < p.k * p.k; ++tap) {
    const int row = pixel / p.x_width + p.before - tap / p.k, col = pixel % p.x_width + p.before - tap % p.k;
    if (row < 0 || col < 0 || row % p.stride != 0 || col % p.stride != 0) continue;  // the same for all lanes
    const int y_row = row / p.stride, y_col = col / p.stride;
    if (y_row >= p.y_height || y_col >= p.y_width) continue;
    const T* const from = dy + ((n * p.y_height + y_row) * p.y_width + y_col) * p.outputs;    // (o)
    const T* const weights = w + static_cast<size_t>(tap) * p.inputs * p.outputs;             // (i, o)
    for (int o = 2 * lane; o < p.outputs; o += 2 * reduce::WARP) {
      const auto dy2 = *reinterpret_cast<const Pack<T, 2>*>(from + o);
      const float dy0 = arch::to_f32(dy2.v[0]), dy1 = arch::to_f32(dy2.v[1]);
#pragma unroll
      for (int c = 0; c < MOST; ++c) {
        if (c >= p.inputs) break;
        const auto w2 = *reinterpret_cast<const Pack<T, 2>*>(weights + static_cast<size_t>(c) * p.outputs + o);
        sum[c] += dy0 * arch::to_f32(w2.v[0]) + dy1 * arch::to_f32(w2.v[1]);
      }
    }
  }
  T* const to = dx + (n * pixels + pixel) * p.inputs;  // (i)
#pragma unroll
  for (int c = 0; c < MOST; ++c) {
    if (c >= p.inputs) break;
    const float total = reduce::warp_sum(sum[c]);
    if (lane == 0) to[c] = arch::from_f32<T>(total);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(128)                                                                \
      conv2d_vjp_3_few_inputs_##dtype(T* dx, const T* dy, const T* w, Params p) {                                  \
    vjp(dx, dy, w, p);                                                                                             \
  }                                                                                                                \
  REGISTER_KERNEL(conv2d_vjp_3_few_inputs_##dtype)
FOR_EACH_DTYPE(ENTRY)
