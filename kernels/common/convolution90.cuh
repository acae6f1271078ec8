// Convolutions by the copy engine and wgmma (sm_90a): which tiles there are, what they meet, where they go. How they are
// multiplied is up to P: patches::Boxes (patches90.cuh), halo::Boxes (halo90.cuh).
#pragma once
#include "moments90.cuh"

namespace convolution90 {

struct Forward {
  int samples, height, width;  // of y
  int inputs, outputs, k, before;
  int groups, size;  // of channels, whose moments are written; channels of one
};

struct Vjp {
  phases::Params all;
  int groups, size;  // of channels, whose moments are written; channels of one
};

// Stores a tile, the block's `turn`-th, of a phase, and the moments of its patches where somebody reads them.
template <class P, bool MOMENTS, class Out>
ARCH_FN void store(const Out& out, const typename P::Sums& acc, const patches::Tile<patches::Grid>& of,
                   const moments::To& to, int phase, int turn, unsigned char* shared) {
  using S = typename P::S;
  const patches::Grid& grid = of.work.grid;
#pragma unroll
  for (int i = 0; i < P::PATCHES; ++i) {
    const int patch = grid.below(of.patch, i);
    if constexpr (MOMENTS) {
      moments::Units<S> units;
      tile::store_apart<S>(out, acc[i], patch * S::ROWS, of.col, shared, units);
      units.write(to, grid.sample(patch), phase * grid.of_sample() + patch % grid.of_sample(), of.col,
                  turn * P::PATCHES + i, shared + tile::STORE_BYTES<S>);
    } else {
      tile::store_apart<S>(out, acc[i], patch * S::ROWS, of.col, shared);
    }
  }
}

// y from x, at stride 1.
template <class P, bool MOMENTS, class T>
ARCH_FN void forward(T* __restrict__ y, Two* __restrict__ parts, const float* __restrict__ bias,
                     const T* __restrict__ shift, const T* __restrict__ residual, const typename P::Operands& from,
                     const Forward& p) {
  using S = typename P::S;
  using Place = patches::Place<tile::InOrder>;
  const patches::Grid grid{p.height, p.width};
  const patches::Work<patches::Grid> work{grid, taps::Taps::all(p.k), -p.before, -p.before, 1, p.inputs};
  const int pixels = p.height * p.width, lines = p.samples * pixels, across = (p.outputs + S::COLS - 1) / S::COLS;
  const tile::Output<T, T, Place> out{y, bias, shift, residual, lines, p.outputs, pixels, Place{grid, {}}};
  const moments::To to{parts, p.groups, p.size, 2 * grid.of_sample()};
  const auto part = [&](int t) {
    return patches::Tile<patches::Grid>{work, grid.first<P::PATCHES>(t / across), t % across * S::COLS};
  };
  const int tiles = lines / (P::PATCHES * S::ROWS) * across;
  patches::run<P>(from, tiles, part, [&](int t, const typename P::Sums& acc, unsigned char* shared) {
    store<P, MOMENTS>(out, acc, part(t), to, 0, t / gridDim.x, shared);
  });
}

// The tiles of a phase of dx.
template <class P> ARCH_FN int tiles_of_phase(const phases::Params& p) {
  using S = typename P::S;
  const int lines = p.samples * (p.x_height / p.stride) * (p.x_width / p.stride);
  return lines / (P::PATCHES * S::ROWS) * ((p.inputs + S::COLS - 1) / S::COLS);
}

// dx from dy, at strides 1 and 2, phase by phase. P may read of dx what has been stored.
template <class P, bool MOMENTS, class T>
ARCH_FN void vjp(T* dx, Two* __restrict__ parts, const float* __restrict__ bias,
                 const typename P::Operands& from, const Vjp& of_moments) {
  using S = typename P::S;
  using Place = patches::Place<phases::Place>;
  const phases::Params& p = of_moments.all;
  const patches::Grid grid{p.x_height / p.stride, p.x_width / p.stride};
  const int lines = p.samples * grid.height * grid.width, across = (p.inputs + S::COLS - 1) / S::COLS;
  const int of_phase = tiles_of_phase<P>(p);
  const moments::To to{parts, of_moments.groups, of_moments.size, 2 * p.stride * p.stride * grid.of_sample()};
  const auto phase = [&](int t) { return phases::Phase::of(p, t / of_phase); };
  const auto part = [&](int t) {
    const auto of = phase(t);
    const patches::Work<patches::Grid> work{grid, of.taps, of.lines.row, of.lines.col, -1, p.outputs};
    return patches::Tile<patches::Grid>{work, grid.first<P::PATCHES>(t % of_phase / across), t % across * S::COLS};
  };
  const int tiles = p.stride * p.stride * of_phase;
  patches::run<P>(from, tiles, part, [&](int t, const typename P::Sums& acc, unsigned char* shared) {
    const Place place{grid, phase(t).place};
    const tile::Output<T, T, Place> out{dx, bias, nullptr, nullptr, lines, p.inputs, 1, place};
    store<P, MOMENTS>(out, acc, part(t), to, t / of_phase, t / gridDim.x, shared);
  });
}

}  // namespace convolution90
