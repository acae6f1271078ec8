// parts[c, q, i] = sum over chunk c of the taps and outputs of dy[target(q, tap), o] w[tap, i, o], by wgmma (sm_90a)
//
// parts: [chunks, n, h, w, i] in float, dy: [n, ho, wo, o], w: [k, k, i, o]. The product of vjp_7_split.cu, see
// warpgroup.cuh; sum/parts.cu adds the chunks and bias. Stride 1, any k and padding; i and o are multiples of 8.
#include "convolution.cuh"
#include "warpgroup.cuh"

#define ENTRY_OF(name, T, COLS)                                                  \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)  \
      name(float* parts, const T* dy, const T* w, convolution::Cut p) {          \
    convolution::vjp<warpgroup::Shape<COLS>>(parts, dy, w, p);                   \
  }                                                                              \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype) ENTRY_OF(conv2d_vjp_8_split_wgmma_128_##dtype, T, 128)
FOR_EACH_HALF(ENTRY)
