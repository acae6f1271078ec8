// dx[q, i] = bias[i] + sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], on tensor cores, phase by phase
//
// dx: [n, h, w, i], dy: [n, ho, wo, o], w: [k, k, i, o], bias: [i]. A phase is a product as in vjp_2_tensor_cores.cu,
// see phases.cuh. Any k and padding, h and w of at least the stride; i and o are multiples of 8. The parts are tile
// sizes.
#include "phases.cuh"

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                   \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)  \
      name(T* dx, const T* dy, const T* w, const float* bias, phases::Params p) {         \
    phases::vjp<tile::Shape<SIZE, SIZE>>(dx, dy, w, bias, p);                             \
  }                                                                                       \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                \
  ENTRY_OF(conv2d_vjp_4_phases_128_##dtype, T, 128, 2) \
  ENTRY_OF(conv2d_vjp_4_phases_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
