// y = x w^T + bias + residual, on tensor cores, for one map of x or three
//
// y, residual: [rows, m], x: [rows, k], w: [m, k], bias: [m]; a layer of the grid for each map, a residual for one only.
// A block computes a tile of its y, see tile.cuh; both operands lie along the depth k, so ldmatrix reads them as they
// are. k and m are multiples of 8. The parts are tile sizes.
#include "linear.cuh"

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                                        \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)                       \
      name(T* y, T* y_2, T* y_3, const T* x, const T* w, const T* w_2, const T* w_3, const float* bias,        \
           const float* bias_2, const float* bias_3, const T* residual, linear::Params p) {                    \
    linear::forward<tile::Shape<SIZE, SIZE>>(linear::of_block(y, y_2, y_3), x, linear::of_block(w, w_2, w_3),  \
        linear::of_block(bias, bias_2, bias_3), residual, p);                                                  \
  }                                                                                                            \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                      \
  ENTRY_OF(linear_fwd_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(linear_fwd_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
