// dx[q, i] = bias[i] + sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], by wgmma (sm_90a)
//
// dx: [n, h, w, i], dy: [n, ho, wo, o], w: [k, k, i, o], bias: [i]. The implicit product of vjp_2_tensor_cores.cu, see
// warpgroup.cuh. Stride 1, any k and padding; i and o are multiples of 8. The parts are columns of a tile.
#include "convolution.cuh"
#include "warpgroup.cuh"

#define ENTRY_OF(name, T, COLS)                                                         \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)         \
      name(T* dx, const T* dy, const T* w, const float* bias, convolution::Params p) {  \
    convolution::vjp<warpgroup::Shape<COLS>>(dx, dy, w, bias, p);                       \
  }                                                                                     \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                            \
  ENTRY_OF(conv2d_vjp_5_wgmma_128_##dtype, T, 128) \
  ENTRY_OF(conv2d_vjp_5_wgmma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
