// y = x w^T + bias + residual, on tensor cores
//
// y, residual: [rows, m], x: [rows, k], w: [m, k], bias: [m]. A block computes a tile of y, see tile.cuh; both operands
// lie along the depth k, so ldmatrix reads them as they are. k and m are multiples of 8. The parts are tile sizes.
#include "linear.cuh"

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                             \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)            \
      name(T* y, const T* x, const T* w, const float* bias, const T* residual, linear::Params p) {  \
    linear::forward<tile::Shape<SIZE, SIZE>>(y, x, w, bias, residual, p);                           \
  }                                                                                                 \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                      \
  ENTRY_OF(linear_fwd_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(linear_fwd_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
