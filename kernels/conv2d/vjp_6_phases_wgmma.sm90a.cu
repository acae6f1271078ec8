// dx[q, i] = bias[i] + sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], phase by phase, by wgmma
// (sm_90a)
//
// dx: [n, h, w, i], dy: [n, ho, wo, o], w: [k, k, i, o], bias: [i]. The products of vjp_4_phases.cu, see warpgroup.cuh.
// Any k and padding, h and w of at least the stride; i and o are multiples of 8. The parts are columns of a tile.
#include "phases.cuh"
#include "warpgroup.cuh"

#define ENTRY_OF(name, T, COLS)                                                    \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)    \
      name(T* dx, const T* dy, const T* w, const float* bias, phases::Params p) {  \
    phases::vjp<warpgroup::Shape<COLS>>(dx, dy, w, bias, p);                       \
  }                                                                                \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                   \
  ENTRY_OF(conv2d_vjp_6_phases_wgmma_128_##dtype, T, 128) \
  ENTRY_OF(conv2d_vjp_6_phases_wgmma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
