// y[p, o] = bias[o] + shift[n, o] + residual[p, o] + sum over taps and inputs of x[source(p, tap), i] w[tap, i, o],
// on tensor cores
//
// y, residual: [n, ho, wo, o], x: [n, h, w, i], w: [k, k, i, o], bias: [o], shift: [n, o]. An implicit product of
// [pixels of y, k k i] and [k k i, o]: a block computes a tile of it (tile.cuh) and gathers pixels tap by tap on their
// way to shared memory (taps.cuh), so nothing is unfolded in memory; w lies across the depth, and ldmatrix transposes
// it on the way. Any k, stride and padding; i and o are multiples of 8. The parts are tile sizes.
#include "taps.cuh"

namespace {

struct Params {
  int rows;  // pixels of y, of all samples
  int x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

template <class S, class T>
ARCH_FN void forward(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w,
                     const float* __restrict__ bias, const T* __restrict__ shift, const T* __restrict__ residual,
                     const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  const int pixels = p.y_height * p.y_width, depth = p.k * p.k * p.inputs;
  taps::Pixels<T, S, 1> a({x, p.x_height, p.x_width, p.inputs}, taps::Taps::all(p.k),
                          {p.rows, p.y_height, p.y_width, p.stride, -p.before, -p.before}, row);
  tile::Columns<T, S, S::COLS> b(w, depth, p.outputs, col);
  float acc[S::I][S::J][4];
  tile::multiply<T, S>(acc, a, b, depth, smem);
  tile::store<S>(tile::Output<T, T>{y, bias, shift, residual, p.rows, p.outputs, pixels}, acc, row, col, smem);
}

}  // namespace

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                                            \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)                           \
      name(T* y, const T* x, const T* w, const float* bias, const T* shift, const T* residual, Params p) {         \
    forward<tile::Shape<SIZE, SIZE>>(y, x, w, bias, shift, residual, p);                                           \
  }                                                                                                                \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                     \
  ENTRY_OF(conv2d_fwd_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(conv2d_fwd_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
