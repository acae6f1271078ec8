// parts[c] = dy w over chunk c of the depth, on tensor cores
//
// parts: [chunks, rows, k] in float, dy: [rows, m], w: [m, k]. The product of vjp_2_tensor_cores.cu, whose depth m is
// cut into chunks that blocks of their own sum: for few rows. sum/parts.cu adds the chunks.
// k and m are multiples of 8. The parts are tile sizes.
#include "linear.cuh"

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                   \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)  \
      name(float* parts, const T* dy, const T* w, linear::Cut p) {                        \
    linear::vjp<tile::Shape<SIZE, SIZE>>(parts, dy, w, p);                                \
  }                                                                                       \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                               \
  ENTRY_OF(linear_vjp_4_split_128_##dtype, T, 128, 2) \
  ENTRY_OF(linear_vjp_4_split_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
