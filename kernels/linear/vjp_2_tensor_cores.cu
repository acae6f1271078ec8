// dx = dy w + residual, on tensor cores
//
// dx, residual: [rows, k], dy: [rows, m], w: [m, k]. A block computes a tile of dx, see tile.cuh; w lies across
// the depth m, so ldmatrix transposes it on the way. k and m are multiples of 8. The parts are tile sizes.
#include "linear.cuh"

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                   \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)  \
      name(T* dx, const T* dy, const T* w, const T* residual, linear::Params p) {         \
    linear::vjp<tile::Shape<SIZE, SIZE>>(dx, dy, w, residual, p);                         \
  }                                                                                       \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                      \
  ENTRY_OF(linear_vjp_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(linear_vjp_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
