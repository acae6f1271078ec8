// dx = [dh gelu(g), dh a gelu'(g)], dh = dy w: the backward pass of a linear map and of the GEGLU before it,
// by wgmma (sm_90a)
//
// dx, x: [rows, 2k], rows of [da, dg] and of [a, g], dy: [rows, m], w: [m, k]. The product dh of vjp_3_wgmma,
// stored as geglu.cuh has it. k and m are multiples of 8. The parts are columns of a tile.
#include "geglu.cuh"
#include "linear.cuh"
#include "warpgroup.cuh"

#define ENTRY_OF(name, T, COLS)                                                                                      \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)                                      \
      name(T* dx, const T* dy, const T* w, const T* x, linear::Params p) {                                           \
    linear::vjp<warpgroup::Shape<COLS>>(geglu::Output<T>{dx, x, p.rows, p.k}, dy, w, p, chunks::Chunk::whole(p.m));  \
  }                                                                                                                  \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                  \
  ENTRY_OF(linear_vjp_9_geglu_wgmma_128_##dtype, T, 128) \
  ENTRY_OF(linear_vjp_9_geglu_wgmma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
