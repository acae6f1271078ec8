// Linear maps on tensor cores: a block computes a tile of shape S (tile.cuh, warpgroup.cuh).
#pragma once
#include "tile.cuh"

namespace linear {

struct Params {
  int rows, k, m;
};

// y = x w^T + bias + residual; both operands lie along the depth k.
template <class S, class T>
ARCH_FN void forward(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w,
                     const float* __restrict__ bias, const T* __restrict__ residual, const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  tile::Rows<T, S, S::ROWS> a(x, p.rows, p.k, row);
  tile::Rows<T, S, S::COLS> b(w, p.m, p.k, col);
  float acc[S::I][S::J][4];
  S::template multiply<T>(acc, a, b, p.k, smem);
  tile::store<S>(tile::Output<T, T>{y, bias, nullptr, residual, p.rows, p.m, 1}, acc, row, col, smem);
}

// dx = dy w; w lies across the depth m.
template <class S, class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  tile::Rows<T, S, S::ROWS> a(dy, p.rows, p.m, row);
  tile::Columns<T, S, S::COLS> b(w, p.m, p.k, col);
  float acc[S::I][S::J][4];
  S::template multiply<T>(acc, a, b, p.m, smem);
  tile::store<S>(tile::Output<T, T>{dx, nullptr, nullptr, nullptr, p.rows, p.k, 1}, acc, row, col, smem);
}

}  // namespace linear
