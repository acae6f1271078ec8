// y[p, o] = bias[o] + shift[n, o] + residual[p, o] + sum over taps and inputs of x[source(p, tap), i] w[tap, i, o], at
// stride 1, by TMA and wgmma (sm_90a)
//
// y, residual: [n, h, w, o], x: [n, h', w', i], w: [k, k, i, o], bias: [o], shift: [n, o]. The product of fwd_5_wgmma,
// whose pixels are patches that the copy engine takes from the image, see patches90.cuh: h is a multiple of 8, w of 16;
// i and o of 8. The parts are columns of a tile, and whether the moments of y are written, see moments90.cuh.
#include "moments90.cuh"

namespace {

struct Params {
  int samples, height, width;  // of y
  int inputs, outputs, k, before;
  int groups, size;  // of channels, whose moments are written; channels of one
};

template <int COLS, bool MOMENTS, class T>
ARCH_FN void forward(T* __restrict__ y, moments::Two* __restrict__ parts, const float* __restrict__ bias,
                     const T* __restrict__ shift, const T* __restrict__ residual, const TensorMap* x,
                     const TensorMap* w, const Params& p) {
  using S = patches::Shape<COLS>;
  using Place = patches::Place<tile::InOrder>;
  const patches::Grid grid{p.height, p.width};
  const patches::Work<patches::Grid> work{grid, taps::Taps::all(p.k), -p.before, -p.before, 1, p.inputs};
  const int pixels = p.height * p.width, lines = p.samples * pixels, across = (p.outputs + COLS - 1) / COLS;
  const tile::Output<T, T, Place> out{y, bias, shift, residual, lines, p.outputs, pixels, Place{grid, {}}};
  const auto part = [&](int t) { return patches::Tile<patches::Grid>{work, t / across, t % across * COLS}; };
  const int tiles = lines / S::ROWS * across;
  patches::run<S, false, T>(x, w, tiles, part, [&](int t, const typename S::Sums& acc, unsigned char* shared) {
    const auto of = part(t);
    if constexpr (MOMENTS) {
      moments::Units<S> units;
      tile::store_apart<S>(out, acc, of.patch * S::ROWS, of.col, shared, units);
      units.write({parts, p.groups, p.size, 2 * grid.of_sample()}, grid.sample(of.patch), of.patch % grid.of_sample(),
                  of.col, t / gridDim.x, shared + tile::STORE_BYTES<S>);
    } else {
      tile::store_apart<S>(out, acc, of.patch * S::ROWS, of.col, shared);
    }
  });
}

}  // namespace

#define ENTRY_OF(name, T, COLS)                                                                     \
  extern "C" __global__ void __launch_bounds__(patches::THREADS)                                    \
      name(T* y, const float* bias, const T* shift, const T* residual,                              \
           const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, Params p) {    \
    forward<COLS, false>(y, nullptr, bias, shift, residual, &x, &w, p);                             \
  }                                                                                                 \
  REGISTER_KERNEL(name)
#define ENTRY_WITH_MOMENTS(name, T, COLS)                                                           \
  extern "C" __global__ void __launch_bounds__(patches::THREADS)                                    \
      name(T* y, moments::Two* parts, const float* bias, const T* shift, const T* residual,         \
           const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, Params p) {    \
    forward<COLS, true>(y, parts, bias, shift, residual, &x, &w, p);                                \
  }                                                                                                 \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                            \
  ENTRY_OF(conv2d_fwd_8_tma_128_##dtype, T, 128)                   \
  ENTRY_OF(conv2d_fwd_8_tma_256_##dtype, T, 256)                   \
  ENTRY_WITH_MOMENTS(conv2d_fwd_8_tma_128_moments_##dtype, T, 128) \
  ENTRY_WITH_MOMENTS(conv2d_fwd_8_tma_256_moments_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
