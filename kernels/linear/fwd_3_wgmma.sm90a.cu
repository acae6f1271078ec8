// y = x w^T + bias + residual, by wgmma (sm_90a), for one map of x or three
//
// y, residual: [rows, m], x: [rows, k], w: [m, k], bias: [m]. The product of fwd_2_tensor_cores.cu, whose instructions
// read both operands from shared memory and run while the next steps are copied, see warpgroup.cuh. k and m are
// multiples of 8. The parts are columns of a tile.
#include "linear.cuh"
#include "warpgroup.cuh"

#define ENTRY_OF(name, T, COLS)                                                                               \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)                               \
      name(T* y, T* y_2, T* y_3, const T* x, const T* w, const T* w_2, const T* w_3, const float* bias,       \
           const float* bias_2, const float* bias_3, const T* residual, linear::Params p) {                   \
    linear::forward<warpgroup::Shape<COLS>>(linear::of_block(y, y_2, y_3), x, linear::of_block(w, w_2, w_3),  \
        linear::of_block(bias, bias_2, bias_3), residual, p);                                                 \
  }                                                                                                           \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                            \
  ENTRY_OF(linear_fwd_3_wgmma_128_##dtype, T, 128) \
  ENTRY_OF(linear_fwd_3_wgmma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
