// Convolutions on tensor cores, as implicit products: pixels are gathered on their way to shared memory (taps.cuh), so
// nothing is unfolded in memory. A block computes a tile of shape S (tile.cuh, warpgroup.cuh), of the whole depth or of
// a chunk of it (chunks.cuh).
#pragma once
#include "taps.cuh"

namespace convolution {

struct Params {
  int rows;  // pixels of the result, of all samples
  int x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

struct Cut {
  Params all;
  int each;  // depth of a chunk
};

// y from x: a product of [pixels of y, k k i] and [k k i, o]; w lies across the depth.
template <class S, class T, class Out>
ARCH_FN void forward(const Out& out, const T* __restrict__ x, const T* __restrict__ w, const Params& p,
                     chunks::Chunk chunk) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  taps::Pixels<T, S, 1> a({x, p.x_height, p.x_width, p.inputs}, taps::Taps::all(p.k),
                          {p.rows, p.y_height, p.y_width, p.stride, -p.before, -p.before}, row, chunk);
  tile::Columns<T, S, S::COLS> b(w, p.outputs, col, chunk);
  float acc[S::I][S::J][4];
  S::template multiply<T>(acc, a, b, chunk.depth, smem);
  tile::store<S>(out, acc, row, col, smem);
}

template <class S, class T>
ARCH_FN void forward(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w,
                     const float* __restrict__ bias, const T* __restrict__ shift, const T* __restrict__ residual,
                     const Params& p) {
  const tile::Output<T, T> out{y, bias, shift, residual, p.rows, p.outputs, p.y_height * p.y_width};
  forward<S>(out, x, w, p, chunks::Chunk::whole(p.k * p.k * p.inputs));
}

template <class S, class T>
ARCH_FN void forward(float* __restrict__ parts, const T* __restrict__ x, const T* __restrict__ w, const Cut& p) {
  const auto out = tile::part<T>(parts, p.all.rows, p.all.outputs);
  forward<S>(out, x, w, p.all, chunks::Chunk::of_block(p.all.k * p.all.k * p.all.inputs, p.each));
}

// dx from dy at stride 1: the same with the roles exchanged, [pixels of x, k k o] and [k k o, i]. w lies along the
// depth o: no flipped or transposed copy of it is made.
template <class S, class T, class Out>
ARCH_FN void vjp(const Out& out, const T* __restrict__ dy, const T* __restrict__ w, const Params& p,
                 chunks::Chunk chunk) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  const auto taps = taps::Taps::all(p.k);
  taps::Pixels<T, S, -1> a({dy, p.y_height, p.y_width, p.outputs}, taps,
                           {p.rows, p.x_height, p.x_width, 1, p.before, p.before}, row, chunk);
  taps::Weights<T, S> b(w, taps, p.inputs, p.outputs, col, chunk);
  float acc[S::I][S::J][4];
  S::template multiply<T>(acc, a, b, chunk.depth, smem);
  tile::store<S>(out, acc, row, col, smem);
}

template <class S, class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const float* __restrict__ bias,
                 const Params& p) {
  const tile::Output<T, T> out{dx, bias, nullptr, nullptr, p.rows, p.inputs, 1};
  vjp<S>(out, dy, w, p, chunks::Chunk::whole(p.k * p.k * p.outputs));
}

template <class S, class T>
ARCH_FN void vjp(float* __restrict__ parts, const T* __restrict__ dy, const T* __restrict__ w, const Cut& p) {
  const auto out = tile::part<T>(parts, p.all.rows, p.all.inputs);
  vjp<S>(out, dy, w, p.all, chunks::Chunk::of_block(p.all.k * p.all.k * p.all.outputs, p.each));
}

}  // namespace convolution
