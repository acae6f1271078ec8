// parts[c] = x w^T over chunk c of the depth, by wgmma (sm_90a)
//
// parts: [chunks, rows, m] in float, x: [rows, k], w: [m, k]. The product of fwd_4_split.cu, see warpgroup.cuh;
// sum/parts.cu adds the chunks, bias and residual. k and m are multiples of 8.
#include "linear.cuh"
#include "warpgroup.cuh"

#define ENTRY_OF(name, T, COLS)                                                  \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)  \
      name(float* parts, const T* x, const T* w, linear::Cut p) {                \
    linear::forward<warpgroup::Shape<COLS>>(parts, x, w, p);                     \
  }                                                                              \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype) ENTRY_OF(linear_fwd_5_split_wgmma_128_##dtype, T, 128)
FOR_EACH_HALF(ENTRY)
