// dx = dy w, by wgmma (sm_90a), or the sum of three such products
//
// dx: [rows, k], dy: [rows, m], w: [m, k]. The products of vjp_2_tensor_cores.cu, see warpgroup.cuh;
// w lies across the depth m, and its descriptor says so. k and m are multiples of 8. The parts are columns of a tile.
#include "linear.cuh"
#include "warpgroup.cuh"

#define ENTRY_OF(name, T, COLS)                                                                       \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)                       \
      name(T* dx, const T* dy, const T* dy_2, const T* dy_3, const T* w, const T* w_2, const T* w_3,  \
           linear::Parts p) {                                                                         \
    linear::vjp<warpgroup::Shape<COLS>>(dx, dy, dy_2, dy_3, w, w_2, w_3, p);                          \
  }                                                                                                   \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                            \
  ENTRY_OF(linear_vjp_3_wgmma_128_##dtype, T, 128) \
  ENTRY_OF(linear_vjp_3_wgmma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
