// y[p, o] = bias[o] + shift[n, o] + residual[p, o] + sum over taps and inputs of x[source(p, tap), i] w[tap, i, o],
// on tensor cores
//
// y, residual: [n, ho, wo, o], x: [n, h, w, i], w: [k, k, i, o], bias: [o], shift: [n, o]. An implicit product of
// [pixels of y, k k i] and [k k i, o]: a block computes a tile of it (tile.cuh) and gathers pixels tap by tap on their
// way to shared memory (taps.cuh), so nothing is unfolded in memory; w lies across the depth, and ldmatrix transposes
// it on the way. Any k, stride and padding; i and o are multiples of 8. The parts are tile sizes.
#include "convolution.cuh"

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                                                  \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)                                 \
      name(T* y, const T* x, const T* w, const float* bias, const T* shift, const T* residual, convolution::Params p) {  \
    convolution::forward<tile::Shape<SIZE, SIZE>>(y, x, w, bias, shift, residual, p);                                    \
  }                                                                                                                      \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                      \
  ENTRY_OF(conv2d_fwd_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(conv2d_fwd_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
