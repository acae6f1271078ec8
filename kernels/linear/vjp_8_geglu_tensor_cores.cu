// dx = [dh gelu(g), dh a gelu'(g)], dh = dy w: the backward pass of a linear map and of the GEGLU before it,
// on tensor cores
//
// dx, x: [rows, 2k], rows of [da, dg] and of [a, g], dy: [rows, m], w: [m, k]. The product dh of
// vjp_2_tensor_cores.cu, stored as geglu.cuh has it. k and m are multiples of 8. The parts are tile sizes.
#include "geglu.cuh"
#include "linear.cuh"

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                                              \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)                             \
      name(T* dx, const T* dy, const T* w, const T* x, linear::Params p) {                                           \
    linear::vjp<tile::Shape<SIZE, SIZE>>(geglu::Output<T>{dx, x, p.rows, p.k}, dy, w, p, chunks::Chunk::whole(p.m)); \
  }                                                                                                                  \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                            \
  ENTRY_OF(linear_vjp_8_geglu_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(linear_vjp_8_geglu_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
