// dx[q, i] = bias[i] + sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], at strides 1 and 2, by TMA and
// wgmma (sm_90a)
//
// dx: [n, h, w, i], dy: [n, h', w', o], w: [k, k, i, o], bias: [i]. The products of vjp_9_tma, which copy a tile's
// pixels once for all taps, see halo90.cuh: h / stride and w / stride are multiples of 16, i and o of 8, a phase has 2
// or 3 taps on an axis at most. The parts are columns of a tile, and whether the moments of dx are written, phase by
// phase, see moments90.cuh.
#include "convolution90.cuh"
#include "halo90.cuh"

#define ENTRY(T, dtype)                                                                                        \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1) conv2d_vjp_10_halo_128_##dtype(            \
          T* dx, const float* bias, const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap w, \
          convolution90::Vjp p) {                                                                              \
    convolution90::vjp<halo::Boxes<true, T>, false>(dx, nullptr, bias, {&dy, &w}, p);                          \
  }                                                                                                            \
  REGISTER_KERNEL(conv2d_vjp_10_halo_128_##dtype)                                                              \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1) conv2d_vjp_10_halo_128_moments_##dtype(    \
          T* dx, Two* parts, const float* bias, const __grid_constant__ TensorMap dy,                          \
          const __grid_constant__ TensorMap w, convolution90::Vjp p) {                                         \
    convolution90::vjp<halo::Boxes<true, T>, true>(dx, parts, bias, {&dy, &w}, p);                             \
  }                                                                                                            \
  REGISTER_KERNEL(conv2d_vjp_10_halo_128_moments_##dtype)
FOR_EACH_HALF(ENTRY)
