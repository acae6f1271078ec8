// dx = dy w, on tensor cores, or the sum of three such products
//
// dx: [rows, k], dy: [rows, m], w: [m, k]. A block computes a tile of dx, see tile.cuh: one sum, whose depth
// goes through the products in turn. w lies across the depth m, so ldmatrix transposes it on the way. k and m are
// multiples of 8. The parts are tile sizes.
#include "linear.cuh"

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                               \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)              \
      name(T* dx, const T* dy, const T* dy_2, const T* dy_3, const T* w, const T* w_2, const T* w_3,  \
           linear::Parts p) {                                                                         \
    linear::vjp<tile::Shape<SIZE, SIZE>>(dx, dy, dy_2, dy_3, w, w_2, w_3, p);                         \
  }                                                                                                   \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                      \
  ENTRY_OF(linear_vjp_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(linear_vjp_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
