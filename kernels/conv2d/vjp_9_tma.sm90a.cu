// dx[q, i] = bias[i] + sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], at strides 1 and 2, by TMA and
// wgmma (sm_90a)
//
// dx: [n, h, w, i], dy: [n, h', w', o], w: [k, k, i, o], bias: [i]. The products of vjp_5_wgmma and vjp_6_phases_wgmma,
// whose pixels are patches that the copy engine takes from dy, see patches90.cuh: h / stride is a multiple of 8,
// w / stride of 16; i and o of 8. The parts are columns of a tile, and whether the moments of dx are written, phase by
// phase, see moments90.cuh.
#include "moments90.cuh"

namespace {

struct Params {
  phases::Params all;
  int groups, size;  // of channels, whose moments are written; channels of one
};

template <int COLS, bool MOMENTS, class T>
ARCH_FN void vjp(T* __restrict__ dx, moments::Two* __restrict__ parts, const float* __restrict__ bias,
                 const TensorMap* dy, const TensorMap* w, const Params& of_moments) {
  using S = patches::Shape<COLS>;
  using Place = patches::Place<phases::Place>;
  const phases::Params& p = of_moments.all;
  const patches::Grid grid{p.x_height / p.stride, p.x_width / p.stride};
  const int lines = p.samples * grid.height * grid.width, across = (p.inputs + COLS - 1) / COLS;
  const int of_phase = lines / S::ROWS * across;  // tiles
  const auto phase = [&](int t) { return phases::Phase::of(p, t / of_phase); };
  const auto part = [&](int t) {
    const auto of = phase(t);
    const patches::Work<patches::Grid> work{grid, of.taps, of.lines.row, of.lines.col, -1, p.outputs};
    return patches::Tile<patches::Grid>{work, t % of_phase / across, t % across * COLS};
  };
  const int tiles = p.stride * p.stride * of_phase;
  patches::run<S, true, T>(dy, w, tiles, part, [&](int t, const typename S::Sums& acc, unsigned char* shared) {
    const Place place{grid, phase(t).place};
    const tile::Output<T, T, Place> out{dx, bias, nullptr, nullptr, lines, p.inputs, 1, place};
    const auto of = part(t);
    if constexpr (MOMENTS) {
      const int of_sample = grid.of_sample(), patch = t / of_phase * of_sample + of.patch % of_sample;
      moments::Units<S> units;
      tile::store_apart<S>(out, acc, of.patch * S::ROWS, of.col, shared, units);
      units.write({parts, of_moments.groups, of_moments.size, 2 * p.stride * p.stride * of_sample},
                  grid.sample(of.patch), patch, of.col, t / gridDim.x, shared + tile::STORE_BYTES<S>);
    } else {
      tile::store_apart<S>(out, acc, of.patch * S::ROWS, of.col, shared);
    }
  });
}

}  // namespace

#define ENTRY_OF(name, T, COLS)                                                                                    \
  extern "C" __global__ void __launch_bounds__(patches::THREADS)                                                   \
      name(T* dx, const float* bias, const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap w,    \
           Params p) {                                                                                             \
    vjp<COLS, false>(dx, nullptr, bias, &dy, &w, p);                                                               \
  }                                                                                                                \
  REGISTER_KERNEL(name)
#define ENTRY_WITH_MOMENTS(name, T, COLS)                                                                          \
  extern "C" __global__ void __launch_bounds__(patches::THREADS)                                                   \
      name(T* dx, moments::Two* parts, const float* bias, const __grid_constant__ TensorMap dy,                    \
           const __grid_constant__ TensorMap w, Params p) {                                                        \
    vjp<COLS, true>(dx, parts, bias, &dy, &w, p);                                                                  \
  }                                                                                                                \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                            \
  ENTRY_OF(conv2d_vjp_9_tma_128_##dtype, T, 128)                   \
  ENTRY_OF(conv2d_vjp_9_tma_256_##dtype, T, 256)                   \
  ENTRY_WITH_MOMENTS(conv2d_vjp_9_tma_128_moments_##dtype, T, 128) \
  ENTRY_WITH_MOMENTS(conv2d_vjp_9_tma_256_moments_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
