// parts[c] = dy w over chunk c of the depth, by wgmma (sm_90a)
//
// parts: [chunks, rows, k] in float, dy: [rows, m], w: [m, k]. The product of vjp_4_split.cu, see warpgroup.cuh;
// sum/parts.cu adds the chunks. k and m are multiples of 8.
#include "linear.cuh"
#include "warpgroup.cuh"

#define ENTRY_OF(name, T, COLS)                                                  \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)  \
      name(float* parts, const T* dy, const T* w, linear::Cut p) {               \
    linear::vjp<warpgroup::Shape<COLS>>(parts, dy, w, p);                        \
  }                                                                              \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype) ENTRY_OF(linear_vjp_5_split_wgmma_128_##dtype, T, 128)
FOR_EACH_HALF(ENTRY)
