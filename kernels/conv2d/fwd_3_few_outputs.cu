// y[p, o] = bias[o] + shift[n, o] + residual[p, o] + sum over taps and inputs of x[source(p, tap), i] w[tap, i, o],
// for the few outputs of a network's last layer
//
// y, residual: [n, ho, wo, o], x: [n, h, w, i], w: [k, k, i, o], bias: [o], shift: [n, o]. A warp computes 32 sums: O
// outputs of 32 / O pixels in a row. Its lanes share out the inputs, two each, so that x is read side by side and each
// weight serves all pixels; in the end the lanes' sums are added such that each lane holds one output. At most O
// outputs, an even number of inputs. The parts are O, and whether y is stored in float.
#include "arch.cuh"

namespace {

static constexpr int WARP = 32;

struct Params {
  int samples, x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

// Adds up 2 HALF values of each lane over the warp: lane l gets the sum of value l % (2 HALF).
template <int HALF> ARCH_FN float sum_over_lanes(const float (&value)[2 * HALF], int lane) {
  const bool upper = lane & HALF;  // a lane keeps the upper half of its values or the lower, its partner the other
  float kept[HALF];
#pragma unroll
  for (int v = 0; v < HALF; ++v) {
    const float given = upper ? value[v] : value[v + HALF];
    kept[v] = (upper ? value[v + HALF] : value[v]) + __shfl_xor_sync(0xffffffffu, given, HALF);
  }
  if constexpr (HALF == 1) {
    return kept[0];
  } else {
    return sum_over_lanes<HALF / 2>(kept, lane);
  }
}

template <int O, class Y, class T>
ARCH_FN void forward(Y* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w,
                     const float* __restrict__ bias, const T* __restrict__ shift, const T* __restrict__ residual,
                     const Params& p) {
  constexpr int PIXELS = WARP / O;
  const int lane = threadIdx.x % WARP, pixels = p.y_height * p.y_width;
  const int first = (blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP) * PIXELS;
  const size_t n = blockIdx.y;
  const T* const sample = x + n * p.x_height * p.x_width * p.inputs;  // (h, w, i)

  float sum[WARP] = {};  // (PIXELS, O)
  for (int tap = 0; tap < p.k * p.k; ++tap) {
    const T* from[PIXELS];  // (i) each pixel's source, or null
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) {
      const int row = (first + i) / p.y_width * p.stride + tap / p.k - p.before;
      const int col = (first + i) % p.y_width * p.stride + tap % p.k - p.before;
      const bool inside = first + i < pixels && row >= 0 && row < p.x_height && col >= 0 && col < p.x_width;
      from[i] = inside ? sample + (static_cast<size_t>(row) * p.x_width + col) * p.inputs : nullptr;
    }
    for (int c = 2 * lane; c < p.inputs; c += 2 * WARP) {
      const T* const weights = w + (static_cast<size_t>(tap) * p.inputs + c) * p.outputs;  // (2, o)
      float a[O], b[O];
#pragma unroll
      for (int o = 0; o < O; ++o) {
        a[o] = o < p.outputs ? arch::to_f32(weights[o]) : 0.0f;
        b[o] = o < p.outputs ? arch::to_f32(weights[p.outputs + o]) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < PIXELS; ++i) {
        if (!from[i]) continue;
        const auto pair = *reinterpret_cast<const Pack<T, 2>*>(from[i] + c);
        const float x0 = arch::to_f32(pair.v[0]), x1 = arch::to_f32(pair.v[1]);
#pragma unroll
        for (int o = 0; o < O; ++o) sum[i * O + o] += x0 * a[o] + x1 * b[o];
      }
    }
  }

  float total = sum_over_lanes<WARP / 2>(sum, lane);
  const int pixel = first + lane / O, o = lane % O;
  if (pixel >= pixels || o >= p.outputs) return;
  const size_t at = (n * pixels + pixel) * p.outputs + o;
  if (bias) total += bias[o];
  if (shift) total += arch::to_f32(shift[n * p.outputs + o]);
  if (residual) total += arch::to_f32(residual[at]);
  y[at] = arch::from_f32<Y>(total);
}

}  // namespace

#define ENTRY_OF(name, O, Y, T)                                                                                    \
  extern "C" __global__ void __launch_bounds__(128, 4)                                                                \
      name(Y* y, const T* x, const T* w, const float* bias, const T* shift, const T* residual, Params p) {         \
    forward<O>(y, x, w, bias, shift, residual, p);                                                                 \
  }                                                                                                                \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                \
  ENTRY_OF(conv2d_fwd_3_few_outputs_4_##dtype, 4, T, T) \
  ENTRY_OF(conv2d_fwd_3_few_outputs_8_##dtype, 8, T, T)
#define ENTRY_WIDE(T, dtype)                                    \
  ENTRY_OF(conv2d_fwd_3_few_outputs_4_wide_##dtype, 4, float, T) \
  ENTRY_OF(conv2d_fwd_3_few_outputs_8_wide_##dtype, 8, float, T)
FOR_EACH_DTYPE(ENTRY)
FOR_EACH_HALF(ENTRY_WIDE)
