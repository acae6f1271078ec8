// parts[c, p, o] = sum over chunk c of the taps and inputs of x[source(p, tap), i] w[tap, i, o], by wgmma (sm_90a)
//
// parts: [chunks, n, ho, wo, o] in float, x: [n, h, w, i], w: [k, k, i, o]. The product of fwd_6_split.cu, see
// warpgroup.cuh; sum/parts.cu adds the chunks, bias, shift and residual. Any k, stride and padding; i and o are
// multiples of 8.
#include "convolution.cuh"
#include "warpgroup.cuh"

#define ENTRY_OF(name, T, COLS)                                                  \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)  \
      name(float* parts, const T* x, const T* w, convolution::Cut p) {           \
    convolution::forward<warpgroup::Shape<COLS>>(parts, x, w, p);                \
  }                                                                              \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype) ENTRY_OF(conv2d_fwd_7_split_wgmma_128_##dtype, T, 128)
FOR_EACH_HALF(ENTRY)
