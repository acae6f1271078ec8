// dw[tap, i, o] = sum over samples and pixels p of x[source(p, tap), i] dy[p, o], on tensor cores
//
// dw: [chunks, k, k, i, o] in float, x: [n, h, w, i], dy: [n, ho, wo, o]. An implicit product [k k i, pixels of dy] and
// [pixels of dy, o]: x is gathered on its way to shared memory, see taps.cuh. A block computes a tile of dw over a chunk
// of the pixels; sum/parts.cu adds the chunks. Both operands lie across the depth, so ldmatrix transposes them on the way.
// Any stride, k and padding; i and o are multiples of 8. The parts are tile sizes.
#include "taps.cuh"

namespace {

struct Params {
  int rows;  // pixels of dy, of all samples
  int x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before, each;  // each: pixels of a chunk
};

template <class S, class T>
ARCH_FN void wgrad(float* __restrict__ dw, const T* __restrict__ x, const T* __restrict__ dy, const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS, lines = p.k * p.k * p.inputs;
  const auto chunk = chunks::Chunk::of_block(p.rows, p.each);
  taps::TransposedPixels<T, S> a({x, p.x_height, p.x_width, p.inputs}, p.k, p.stride, p.before,
                                 p.y_height, p.y_width, chunk, row);
  tile::Columns<T, S, S::COLS> b(dy, p.outputs, col, chunk);
  float acc[S::I][S::J][4];
  tile::multiply<T, S>(acc, a, b, chunk.depth, smem);
  tile::store<S>(tile::part<T>(dw, lines, p.outputs), acc, row, col, smem);
}

}  // namespace

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                   \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)  \
      name(float* dw, const T* x, const T* dy, Params p) {                                \
    wgrad<tile::Shape<SIZE, SIZE>>(dw, x, dy, p);                                         \
  }                                                                                       \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                        \
  ENTRY_OF(conv2d_wgrad_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(conv2d_wgrad_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
