// Linear maps on tensor cores: a block computes a tile of shape S (tile.cuh, warpgroup.cuh), of the whole depth or of a
// chunk of it (chunks.cuh). A launch may be of three maps of one input, the parts: forward each is a layer of the grid,
// and backward one sum goes through all of them.
#pragma once
#include "tile.cuh"

namespace linear {

struct Params {
  int rows, k, m;
};

// Of as many parts.
struct Parts {
  Params each;
  int count;
};

struct Cut {
  Params all;
  int each;  // depth of a chunk
};

// Part `i` of three; a launch of one part has the first only.
template <class T> ARCH_FN T* part(int i, T* first, T* second, T* third) {
  return i == 0 ? first : i == 1 ? second : third;
}

// This block's part.
template <class T> ARCH_FN T* of_block(T* first, T* second, T* third) { return part(blockIdx.z, first, second, third); }

// Element i of dy w.
template <class T>
ARCH_FN float element(size_t i, const T* __restrict__ dy, const T* __restrict__ w, const Params& p) {
  const T* const from = dy + i / p.k * p.m;  // (m) this row
  const T* const weights = w + i % p.k;      // (m) every k-th
  float sum = 0.0f;
  for (int j = 0; j < p.m; ++j) sum += arch::to_f32(from[j]) * arch::to_f32(weights[static_cast<size_t>(j) * p.k]);
  return sum;
}

// An operand of a sum over parts: Of, the first one's, then the others', each in whole steps of S, zeros beyond its end.
template <class T, class S, class Of> struct InTurn : Of {
  const T *next, *last;
  int span;  // of a part, in whole steps

  __device__ __forceinline__ InTurn(const Of& first, const T* second, const T* third, int depth)
      : Of(first), next(second), last(third), span((depth + S::DEPTH - 1) / S::DEPTH * S::DEPTH) {}

  __device__ __forceinline__ void copy(u32 to) {
    Of::copy(to);
    if (this->at < span) return;
    this->at -= span;
    this->from = next;
    next = last;
  }
};

// This block's tile of a b, whose operands start at its `row` and `col`.
template <class S, class T, class A, class B, class Out>
ARCH_FN void product(const Out& out, A& a, B& b, int depth, int row, int col) {
  DYN_SMEM(smem);
  float acc[S::I][S::J][4];
  S::template multiply<T>(acc, a, b, depth, smem);
  tile::store<S>(out, acc, row, col, smem);
}

// y = x w^T + bias + residual; both operands lie along the depth k.
template <class S, class T, class Out>
ARCH_FN void forward(const Out& out, const T* __restrict__ x, const T* __restrict__ w, const Params& p,
                     chunks::Chunk chunk) {
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  tile::Rows<T, S, S::ROWS> a(x, p.rows, p.k, row, chunk);
  tile::Rows<T, S, S::COLS> b(w, p.m, p.k, col, chunk);
  product<S, T>(out, a, b, chunk.depth, row, col);
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

// dx = the sum of dy w over the parts; w lies across the depth m.
template <class S, class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ dy_2, const T* __restrict__ dy_3,
                 const T* __restrict__ w, const T* __restrict__ w_2, const T* __restrict__ w_3,
                 const Parts& parts) {
  using A = tile::Rows<T, S, S::ROWS>;
  using B = tile::Columns<T, S, S::COLS>;
  const Params& p = parts.each;
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  const auto whole = chunks::Chunk::whole(p.m);
  InTurn<T, S, A> a(A(dy, p.rows, p.m, row, whole), dy_2, dy_3, p.m);
  InTurn<T, S, B> b(B(w, p.k, col, whole), w_2, w_3, p.m);
  const tile::Output<T, T> out{dx, nullptr, nullptr, nullptr, p.rows, p.k, 1};
  product<S, T>(out, a, b, parts.count * a.span, row, col);
}

// The same of one part, whose products go to `out`.
template <class S, class T, class Out>
ARCH_FN void vjp(const Out& out, const T* __restrict__ dy, const T* __restrict__ w, const Params& p,
                 chunks::Chunk chunk) {
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  tile::Rows<T, S, S::ROWS> a(dy, p.rows, p.m, row, chunk);
  tile::Columns<T, S, S::COLS> b(w, p.k, col, chunk);
  product<S, T>(out, a, b, chunk.depth, row, col);
}

template <class S, class T>
ARCH_FN void vjp(float* __restrict__ parts, const T* __restrict__ dy, const T* __restrict__ w, const Cut& p) {
  vjp<S>(tile::part<T>(parts, p.all.rows, p.all.k), dy, w, p.all, chunks::Chunk::of_block(p.all.m, p.each));
}

}  // namespace linear
