// dx[q, i] = bias[i] + sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], at strides 1 and 2, by TMA and
// wgmma (sm_90a)
//
// dx: [n, h, w, i], dy: [n, h', w', o], w: [k, k, i, o], bias: [i]. The products of vjp_5_wgmma and vjp_6_phases_wgmma,
// whose pixels are patches that the copy engine takes from dy, see patches90.cuh: h / stride is a multiple of 8,
// w / stride of 16; i and o of 8. The parts are columns of a tile, and whether the moments of dx are written, phase by
// phase, see moments90.cuh.
#include "convolution90.cuh"

namespace {

template <int COLS, class T> using P = patches::Boxes<COLS, true, T>;

}  // namespace

#define ENTRY_OF(name, T, COLS)                                                                                 \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1)                                             \
      name(T* dx, const float* bias, const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap w, \
           convolution90::Vjp p) {                                                                              \
    convolution90::vjp<P<COLS, T>, false>(dx, nullptr, bias, {&dy, &w}, p);                                     \
  }                                                                                                             \
  REGISTER_KERNEL(name)
#define ENTRY_WITH_MOMENTS(name, T, COLS)                                                       \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1)                             \
      name(T* dx, Two* parts, const float* bias, const __grid_constant__ TensorMap dy,          \
           const __grid_constant__ TensorMap w, convolution90::Vjp p) {                         \
    convolution90::vjp<P<COLS, T>, true>(dx, parts, bias, {&dy, &w}, p);                        \
  }                                                                                             \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                            \
  ENTRY_OF(conv2d_vjp_9_tma_128_##dtype, T, 128)                   \
  ENTRY_OF(conv2d_vjp_9_tma_256_##dtype, T, 256)                   \
  ENTRY_WITH_MOMENTS(conv2d_vjp_9_tma_128_moments_##dtype, T, 128) \
  ENTRY_WITH_MOMENTS(conv2d_vjp_9_tma_256_moments_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
