// y[p, o] = bias[o] + shift[n, o] + residual[p, o] + sum over taps and inputs of x[source(p, tap), i] w[tap, i, o], at
// stride 1, by TMA and wgmma (sm_90a)
//
// y, residual: [n, h, w, o], x: [n, h', w', i], w: [k, k, i, o], bias: [o], shift: [n, o]. The product of fwd_5_wgmma,
// whose pixels are patches that the copy engine takes from the image, see patches90.cuh: h is a multiple of 8, w of 16;
// i and o of 8. The parts are columns of a tile, and whether the moments of y are written, see moments90.cuh.
#include "convolution90.cuh"

namespace {

template <int COLS, class T> using P = patches::Boxes<COLS, false, T>;

}  // namespace

#define ENTRY_OF(name, T, COLS)                                                                                  \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1)                                              \
      name(T* y, const float* bias, const T* shift, const T* residual,                                           \
           const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, convolution90::Forward p) { \
    convolution90::forward<P<COLS, T>, false>(y, nullptr, bias, shift, residual, {&x, &w}, p);                   \
  }                                                                                                              \
  REGISTER_KERNEL(name)
#define ENTRY_WITH_MOMENTS(name, T, COLS)                                                                        \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1)                                              \
      name(T* y, Two* parts, const float* bias, const T* shift, const T* residual,                               \
           const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, convolution90::Forward p) { \
    convolution90::forward<P<COLS, T>, true>(y, parts, bias, shift, residual, {&x, &w}, p);                      \
  }                                                                                                              \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                            \
  ENTRY_OF(conv2d_fwd_8_tma_128_##dtype, T, 128)                   \
  ENTRY_OF(conv2d_fwd_8_tma_256_##dtype, T, 256)                   \
  ENTRY_WITH_MOMENTS(conv2d_fwd_8_tma_128_moments_##dtype, T, 128) \
  ENTRY_WITH_MOMENTS(conv2d_fwd_8_tma_256_moments_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
