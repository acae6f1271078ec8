// y = the sum over chunks of parts, in their order: what ends a sum over a long depth (chunks.cuh).
//
// y: [len], parts: [count, len], both in float whatever the activations are. One thread an element of y.
//
// `products` ends those of tile.cuh, whose outputs are of the activations' type: y = that + bias + shift + residual.
// y, residual: [rows, cols], parts: [count, rows, cols] in float, bias: [cols], shift: [rows / sample_rows, cols]. One
// thread eight columns of y, of which there are multiples of 8.
#include "tile.cuh"

namespace {

struct Params {
  int len, count;
};

struct Products {
  int rows, cols, sample_rows, count;
};

ARCH_FN void add(float* __restrict__ y, const float* __restrict__ parts, Params p) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= p.len) return;
  float sum = parts[i];
  for (int chunk = 1; chunk < p.count; ++chunk) sum += parts[static_cast<size_t>(chunk) * p.len + i];
  y[i] = sum;
}

template <class T>
ARCH_FN void finish(T* __restrict__ y, const float* __restrict__ parts, const float* __restrict__ bias,
                    const T* __restrict__ shift, const T* __restrict__ residual, const Products& p) {
  const int across = p.cols / tile::PIECE, piece = blockIdx.x * blockDim.x + threadIdx.x;
  const int row = piece / across, col = piece % across * tile::PIECE;
  if (row >= p.rows) return;
  const size_t len = static_cast<size_t>(p.rows) * p.cols, at = static_cast<size_t>(row) * p.cols + col;
  float sum[tile::PIECE] = {};
#pragma unroll 4
  for (int chunk = 0; chunk < p.count; ++chunk) tile::add_piece(sum, parts + chunk * len + at);
  tile::finish(tile::Output<T, T>{y, bias, shift, residual, p.rows, p.cols, p.sample_rows}, sum, row, col);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) sum_parts_f32(float* y, const float* parts, Params p) {
  add(y, parts, p);
}
REGISTER_KERNEL(sum_parts_f32)

#define ENTRY(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(64)                                                                 \
      sum_parts_products_##dtype(T* y, const float* parts, const float* bias, const T* shift, const T* residual,   \
                                 Products p) {                                                                     \
    finish(y, parts, bias, shift, residual, p);                                                                    \
  }                                                                                                                \
  REGISTER_KERNEL(sum_parts_products_##dtype)
FOR_EACH_HALF(ENTRY)
