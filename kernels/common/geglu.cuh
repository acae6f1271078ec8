// GEGLU's backward pass where its cotangent is a product on tensor cores: what stores a tile of that (tile.cuh) reads
// [a, g] at the same places and writes [da, dg], so that the product is never in memory, nor rounded. a and g are asked
// for a part of the tile ahead.
#pragma once
#include "math.cuh"
#include "tile.cuh"
#include "vector.cuh"

namespace geglu {

// Where the product goes: dx and x are (rows, 2 cols), rows of [da, dg] and of [a, g].
template <class T> struct Output {
  T* dx;
  const T* x;
  int rows, cols;  // of the product

  // Of a and da; g and dg are `cols` further.
  __device__ __forceinline__ size_t at(int row, int col) const { return static_cast<size_t>(row) * 2 * cols + col; }
};

template <class T> using Piece = Pack<T, tile::PIECE>;

template <class T> struct Inputs {
  Piece<T> a, g;
};

// The overloads that tile::store_apart finds by the type of `out`.
template <class T> ARCH_FN Inputs<T> beside(const Output<T>& out, int row, int col) {
  const T* const a = out.x + out.at(row, col);
  const T* const g = a + out.cols;
  return {*reinterpret_cast<const Piece<T>*>(a), *reinterpret_cast<const Piece<T>*>(g)};
}

// Stores a piece of da and one of dg, of the piece `dy` of the product.
template <class T>
ARCH_FN void finish(const Output<T>& out, const Inputs<T>& in, float (&dy)[tile::PIECE], int row, int col) {
  float a[tile::PIECE], g[tile::PIECE];
#pragma unroll
  for (int i = 0; i < tile::PIECE; ++i) {
    a[i] = arch::to_f32(in.a.v[i]);
    g[i] = arch::to_f32(in.g.v[i]);
    math::fast_geglu_vjp(a[i], g[i], dy[i]);
  }
  T* const da = out.dx + out.at(row, col);
  vec::store(da, a);
  vec::store(da + out.cols, g);
}

}  // namespace geglu
