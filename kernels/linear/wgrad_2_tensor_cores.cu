// dw = dy^T x, on tensor cores
//
// dw: [chunks, m, k] in float, x: [rows, k], dy: [rows, m]. A block computes a tile of dw over a chunk of the rows, see
// tile.cuh; sum/parts.cu adds the chunks. Both operands lie across the depth, the rows, so ldmatrix transposes them on
// the way. k and m are multiples of 8. The parts are tile sizes.
#include "tile.cuh"

namespace {

struct Params {
  int rows, k, m, each;  // each: rows of a chunk
};

template <class S, class T>
ARCH_FN void wgrad(float* __restrict__ dw, const T* __restrict__ x, const T* __restrict__ dy, const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  const auto chunk = chunks::Chunk::of_block(p.rows, p.each);
  tile::Columns<T, S, S::ROWS> a(dy, p.m, row, chunk);
  tile::Columns<T, S, S::COLS> b(x, p.k, col, chunk);
  float acc[S::I][S::J][4];
  tile::multiply<T, S>(acc, a, b, chunk.depth, smem);
  tile::store<S>(tile::part<T>(dw, p.m, p.k), acc, row, col, smem);
}

}  // namespace

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                   \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)  \
      name(float* dw, const T* x, const T* dy, Params p) {                                \
    wgrad<tile::Shape<SIZE, SIZE>>(dw, x, dy, p);                                         \
  }                                                                                       \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                        \
  ENTRY_OF(linear_wgrad_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(linear_wgrad_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
