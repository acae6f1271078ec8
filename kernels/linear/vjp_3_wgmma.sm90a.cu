// dx = dy w + residual, by wgmma (sm_90a)
//
// dx, residual: [rows, k], dy: [rows, m], w: [m, k]. The product of vjp_2_tensor_cores.cu, see warpgroup.cuh;
// w lies across the depth m, and its descriptor says so. k and m are multiples of 8. The parts are columns of a tile.
#include "linear.cuh"
#include "warpgroup.cuh"

#define ENTRY_OF(name, T, COLS)                                                  \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)  \
      name(T* dx, const T* dy, const T* w, const T* residual, linear::Params p) {\
    linear::vjp<warpgroup::Shape<COLS>>(dx, dy, w, residual, p);                 \
  }                                                                              \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                            \
  ENTRY_OF(linear_vjp_3_wgmma_128_##dtype, T, 128) \
  ENTRY_OF(linear_vjp_3_wgmma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
