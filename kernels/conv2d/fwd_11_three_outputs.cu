// y[p, o] = bias[o] + shift[n, o] + residual[p, o] + sum over taps and inputs of u[source(p, tap), i] w[tap, i, o], at
// stride 1, for the last layer of what makes images: u = x, or silu(x norm_scale[n, i] + norm_shift[n, i]), rounded as a
// norm stores it
//
// y, residual: [n, h, w, o], x: [n, h, w, i], w: [3, 3, i, o], bias: [o], shift: [n, o], norm_scale, norm_shift: f32
// [n, i]. Products first, then taps: a block multiplies the 18 x 18 pixels around its 16 x 16 of y by the weights of all
// taps, which are 27 columns at most, and adds up what meets in a pixel of y. So x is read and normalised 1.27 times, not
// nine. A warp takes three times 16 pixels. Zeros beyond the edges are around u.
// At most three outputs; inputs are a multiple of 32, at most 640. Grid: tiles of 16 x 16, n. The parts are whether x is
// normalised, and whether y is stored in float.
#include "eights.cuh"
#include "math.cuh"
#include "vector.cuh"

namespace {

using eights::Eight;

static constexpr int SIDE = 16, AROUND = SIDE + 2, SOURCES = AROUND * AROUND;
static constexpr int TAPS = 9, TILES = 3;  // of 16 sources of a warp
static constexpr int WARPS = (SOURCES + TILES * eights::ROWS - 1) / (TILES * eights::ROWS);
static constexpr int THREADS = WARPS * eights::WARP;
static constexpr int COLUMNS = 32, J = COLUMNS / eights::COLS;
static constexpr int PITCH = COLUMNS + 1;  // of the products of a source
static constexpr int SHARED = SOURCES * PITCH * sizeof(float) / sizeof(Eight);  // products, and weights before them
static constexpr int MOST = 640;                                                // inputs
static_assert(MOST / eights::DEPTH * J * eights::WARP <= SHARED, "the weights have room");

struct Params {
  int samples, height, width, inputs, outputs;
};

// The weights as lanes multiply them: (inputs / 32, J, lane).
template <class T> ARCH_FN void bring(Eight* to, const T* __restrict__ w, const Params& p) {
  for (int i = threadIdx.x; i < p.inputs / eights::DEPTH * J * eights::WARP; i += THREADS) {
    const int lane = i % eights::WARP, tile = i / eights::WARP;
    const int column = tile % J * eights::COLS + lane / 4, tap = column / p.outputs, o = column % p.outputs;
    const int channel = tile / J * eights::DEPTH + lane % 4 * 8;
    const T* const from = w + (static_cast<size_t>(tap) * p.inputs + channel) * p.outputs + o;
    to[i] = tap < TAPS ? eights::gather(from, p.outputs) : Eight{};
  }
}

template <class T> ARCH_FN Eight normalised(Eight x, const float (&scale)[8], const float (&shift)[8]) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const float low = arch::low2<T>(x.v[k]) * scale[2 * k] + shift[2 * k];
    const float high = arch::high2<T>(x.v[k]) * scale[2 * k + 1] + shift[2 * k + 1];
    x.v[k] = arch::pack2<T>(math::fast_silu(low), math::fast_silu(high));
  }
  return x;
}

template <bool NORMED, class Y, class T>
ARCH_FN void forward(Y* __restrict__ y, const T* __restrict__ x, const float* __restrict__ scale,
                     const float* __restrict__ shift, const T* __restrict__ w, const float* __restrict__ bias,
                     const T* __restrict__ more, const T* __restrict__ residual, const Params& p) {
  SHARED_ARRAY(Eight, shared, SHARED);
  const int lane = threadIdx.x % eights::WARP, warp = threadIdx.x / eights::WARP;
  const int across = (p.width + SIDE - 1) / SIDE;
  const int top = blockIdx.x / across * SIDE, left = blockIdx.x % across * SIDE;
  const size_t n = blockIdx.y;
  const int first = warp * TILES * eights::ROWS + lane / 4;  // source

  const T* from[TILES][2];  // this lane's rows of the sources, or null
#pragma unroll
  for (int i = 0; i < 2 * TILES; ++i) {
    const int source = first + 8 * i, row = top + source / AROUND - 1, col = left + source % AROUND - 1;
    const bool inside = source < SOURCES && row >= 0 && row < p.height && col >= 0 && col < p.width;
    from[i / 2][i % 2] = inside ? x + ((n * p.height + row) * p.width + col) * p.inputs : nullptr;
  }
  bring(shared, w, p);
  __syncthreads();  // the weights are there

  float sum[TILES][J][4] = {};
  for (int step = 0; step < p.inputs / eights::DEPTH; ++step) {
    const int channel = step * eights::DEPTH + lane % 4 * 8;
    Eight a[TILES][2] = {}, b[J];
#pragma unroll
    for (int i = 0; i < 2 * TILES; ++i) {
      const T* const row = from[i / 2][i % 2];
      if (row) a[i / 2][i % 2] = *reinterpret_cast<const Eight*>(row + channel);
    }
    if constexpr (NORMED) {
      float s[8], t[8];
      vec::load(s, scale + n * p.inputs + channel);
      vec::load(t, shift + n * p.inputs + channel);
#pragma unroll
      for (int i = 0; i < 2 * TILES; ++i) {
        if (from[i / 2][i % 2]) a[i / 2][i % 2] = normalised<T>(a[i / 2][i % 2], s, t);
      }
    }
#pragma unroll
    for (int j = 0; j < J; ++j) b[j] = shared[(step * J + j) * eights::WARP + lane];
    eights::multiply<T>(sum, a, b);
  }

  __syncthreads();  // nobody needs the weights
  float* const products = reinterpret_cast<float*>(shared);  // (SOURCES, COLUMNS) of pitch PITCH
#pragma unroll
  for (int i = 0; i < 2 * TILES; ++i) {
    const int source = first + 8 * i;
    if (source >= SOURCES) continue;
#pragma unroll
    for (int j = 0; j < J; ++j) {
      float* const to = products + source * PITCH + j * eights::COLS + lane % 4 * 2;
      to[0] = sum[i / 2][j][i % 2 * 2];
      to[1] = sum[i / 2][j][i % 2 * 2 + 1];
    }
  }
  __syncthreads();  // the products are there

  for (int i = threadIdx.x; i < SIDE * SIDE * p.outputs; i += THREADS) {
    const int pixel = i / p.outputs, o = i % p.outputs;
    const int row = top + pixel / SIDE, col = left + pixel % SIDE;
    if (row >= p.height || col >= p.width) continue;
    float total = 0.0f;
#pragma unroll
    for (int tap = 0; tap < TAPS; ++tap) {
      const int source = (pixel / SIDE + tap / 3) * AROUND + pixel % SIDE + tap % 3;
      total += products[source * PITCH + tap * p.outputs + o];
    }
    const size_t at = ((n * p.height + row) * p.width + col) * p.outputs + o;
    if (bias) total += bias[o];
    if (more) total += arch::to_f32(more[n * p.outputs + o]);
    if (residual) total += arch::to_f32(residual[at]);
    y[at] = arch::from_f32<Y>(total);
  }
}

}  // namespace

#define ENTRY_OF(name, Y, T)                                                                                         \
  extern "C" __global__ void __launch_bounds__(THREADS, 2) conv2d_fwd_11_three_outputs_##name(                       \
          Y* y, const T* x, const T* w, const float* bias, const T* shift, const T* residual, Params p) {            \
    forward<false>(y, x, nullptr, nullptr, w, bias, shift, residual, p);                                             \
  }                                                                                                                  \
  REGISTER_KERNEL(conv2d_fwd_11_three_outputs_##name)                                                                \
  extern "C" __global__ void __launch_bounds__(THREADS, 2) conv2d_fwd_11_three_outputs_normed_##name(                \
          Y* y, const T* x, const float* norm_scale, const float* norm_shift, const T* w, const float* bias,         \
          const T* shift, const T* residual, Params p) {                                                             \
    forward<true>(y, x, norm_scale, norm_shift, w, bias, shift, residual, p);                                        \
  }                                                                                                                  \
  REGISTER_KERNEL(conv2d_fwd_11_three_outputs_normed_##name)
#define ENTRY(T, dtype)          \
  ENTRY_OF(dtype, T, T)          \
  ENTRY_OF(wide_##dtype, float, T)
FOR_EACH_HALF(ENTRY)
