// y[p, o] = bias[o] + shift[n, o] + residual[p, o] + sum over taps and inputs of x[source(p, tap), i] w[tap, i, o],
// by wgmma (sm_90a)
//
// y, residual: [n, ho, wo, o], x: [n, h, w, i], w: [k, k, i, o], bias: [o], shift: [n, o]. The implicit product of
// fwd_2_tensor_cores.cu, whose instructions read both operands from shared memory and run while the next pixels are
// gathered, see warpgroup.cuh; w lies across the depth, and its descriptor says so. Any k, stride and padding; i and o
// are multiples of 8. The parts are columns of a tile.
#include "convolution.cuh"
#include "warpgroup.cuh"

#define ENTRY_OF(name, T, COLS)                                                                                          \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)                                          \
      name(T* y, const T* x, const T* w, const float* bias, const T* shift, const T* residual, convolution::Params p) {  \
    convolution::forward<warpgroup::Shape<COLS>>(y, x, w, bias, shift, residual, p);                                     \
  }                                                                                                                      \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                            \
  ENTRY_OF(conv2d_fwd_5_wgmma_128_##dtype, T, 128) \
  ENTRY_OF(conv2d_fwd_5_wgmma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
