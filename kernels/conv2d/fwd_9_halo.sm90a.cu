// y[p, o] = bias[o] + shift[n, o] + residual[p, o] + sum over taps and inputs of x[source(p, tap), i] w[tap, i, o], at
// stride 1, by TMA and wgmma (sm_90a)
//
// y, residual: [n, h, w, o], x: [n, h', w', i], w: [k, k, i, o], bias: [o], shift: [n, o]. The product of fwd_8_tma,
// which copies a tile's pixels once for all taps, see halo90.cuh: h and w are multiples of 16, i and o of 8, k is 2 or 3.
// The parts are columns of a tile, and whether the moments of y are written, see moments90.cuh.
#include "convolution90.cuh"
#include "halo90.cuh"

#define ENTRY(T, dtype)                                                                                          \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1) conv2d_fwd_9_halo_128_##dtype(               \
          T* y, const float* bias, const T* shift, const T* residual, const __grid_constant__ TensorMap x,       \
          const __grid_constant__ TensorMap w, convolution90::Forward p) {                                       \
    convolution90::forward<halo::Boxes<false, T>, false>(y, nullptr, bias, shift, residual, {&x, &w}, p);        \
  }                                                                                                              \
  REGISTER_KERNEL(conv2d_fwd_9_halo_128_##dtype)                                                                 \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1) conv2d_fwd_9_halo_128_moments_##dtype(       \
          T* y, Two* parts, const float* bias, const T* shift, const T* residual,                                \
          const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, convolution90::Forward p) {  \
    convolution90::forward<halo::Boxes<false, T>, true>(y, parts, bias, shift, residual, {&x, &w}, p);           \
  }                                                                                                              \
  REGISTER_KERNEL(conv2d_fwd_9_halo_128_moments_##dtype)
FOR_EACH_HALF(ENTRY)
