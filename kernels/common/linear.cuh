// Linear maps on tensor cores: a block computes a tile of shape S (tile.cuh, warpgroup.cuh), of the whole depth or of a
// chunk of it (chunks.cuh).
#pragma once
#include "tile.cuh"

namespace linear {

struct Params {
  int rows, k, m;
};

struct Cut {
  Params all;
  int each;  // depth of a chunk
};

// y = x w^T + bias + residual; both operands lie along the depth k.
template <class S, class T, class Out>
ARCH_FN void forward(const Out& out, const T* __restrict__ x, const T* __restrict__ w, const Params& p,
                     chunks::Chunk chunk) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  tile::Rows<T, S, S::ROWS> a(x, p.rows, p.k, row, chunk);
  tile::Rows<T, S, S::COLS> b(w, p.m, p.k, col, chunk);
  float acc[S::I][S::J][4];
  S::template multiply<T>(acc, a, b, chunk.depth, smem);
  tile::store<S>(out, acc, row, col, smem);
}

template <class S, class T>
ARCH_FN void forward(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w,
                     const float* __restrict__ bias, const T* __restrict__ residual, const Params& p) {
  forward<S>(tile::Output<T, T>{y, bias, nullptr, residual, p.rows, p.m, 1}, x, w, p, chunks::Chunk::whole(p.k));
}

template <class S, class T>
ARCH_FN void forward(float* __restrict__ parts, const T* __restrict__ x, const T* __restrict__ w, const Cut& p) {
  forward<S>(tile::part<T>(parts, p.all.rows, p.all.m), x, w, p.all, chunks::Chunk::of_block(p.all.k, p.each));
}

// dx = dy w + residual; w lies across the depth m.
template <class S, class T, class Out>
ARCH_FN void vjp(const Out& out, const T* __restrict__ dy, const T* __restrict__ w, const Params& p,
                 chunks::Chunk chunk) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  tile::Rows<T, S, S::ROWS> a(dy, p.rows, p.m, row, chunk);
  tile::Columns<T, S, S::COLS> b(w, p.k, col, chunk);
  float acc[S::I][S::J][4];
  S::template multiply<T>(acc, a, b, chunk.depth, smem);
  tile::store<S>(out, acc, row, col, smem);
}

template <class S, class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w,
                 const T* __restrict__ residual, const Params& p) {
  const tile::Output<T, T> out{dx, nullptr, nullptr, residual, p.rows, p.k, 1};
  vjp<S>(out, dy, w, p, chunks::Chunk::whole(p.m));
}

template <class S, class T>
ARCH_FN void vjp(float* __restrict__ parts, const T* __restrict__ dy, const T* __restrict__ w, const Cut& p) {
  vjp<S>(tile::part<T>(parts, p.all.rows, p.all.k), dy, w, p.all, chunks::Chunk::of_block(p.all.m, p.each));
}

}  // namespace linear
