// dx = [dh gelu(g), dh a gelu'(g)], dh = dy w: the backward pass of a linear map and of the GEGLU before it,
// by TMA and wgmma (sm_90a)
//
// dx, x: [rows, 2k], rows of [da, dg] and of [a, g], dy: [rows, m], w: [m, k]. The product dh of vjp_6_tma,
// stored as geglu.cuh has it. k and m are multiples of 8. The parts are columns of a tile.
#include "geglu.cuh"
#include "linear.cuh"
#include "patches90.cuh"

#define ENTRY_OF(name, T, COLS)                                                                             \
  extern "C" __global__ void __launch_bounds__(patches::THREADS)                                            \
      name(T* dx, const T* x, const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap w,    \
           linear::Params p) {                                                                              \
    patches::product<COLS, false, T>(geglu::Output<T>{dx, x, p.rows, p.k}, &dy, &w, p.m);                   \
  }                                                                                                         \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                 \
  ENTRY_OF(linear_vjp_10_geglu_tma_128_##dtype, T, 128) \
  ENTRY_OF(linear_vjp_10_geglu_tma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
