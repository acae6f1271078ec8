// y[p, o] = bias[o] + shift[n, o] + residual[p, o] + sum over taps and inputs of u[source(p, tap), i] w[tap, i, o], where
// u = silu(x norm_scale[n, i] + norm_shift[n, i]), at stride 1, by TMA and wgmma (sm_90a)
//
// y, residual: [n, h, w, o], x: [n, h, w, i], w: [3, 3, i, o], bias: [o], shift: [n, o], norm_scale, norm_shift: f32
// [n, i]. The product of fwd_9_halo, of a norm's input: u is made in shared memory, see normed90.cuh. h and w are
// multiples of 16, i and o of 8. The parts are columns of a tile, and whether the moments of y are written, see
// moments90.cuh.
#include "convolution90.cuh"
#include "normed90.cuh"

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1) conv2d_fwd_10_normed_halo_128_##dtype(           \
          T* y, const float* norm_scale, const float* norm_shift, const float* bias, const T* shift,                 \
          const T* residual, const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w,               \
          convolution90::Forward p) {                                                                                \
    convolution90::forward<halo::Normed<T>, false>(y, nullptr, bias, shift, residual, {{&x, &w}, {norm_scale, norm_shift}}, p); \
  }                                                                                                                  \
  REGISTER_KERNEL(conv2d_fwd_10_normed_halo_128_##dtype)                                                             \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1) conv2d_fwd_10_normed_halo_128_moments_##dtype(   \
          T* y, Two* parts, const float* norm_scale, const float* norm_shift, const float* bias,                     \
          const T* shift, const T* residual, const __grid_constant__ TensorMap x,                                    \
          const __grid_constant__ TensorMap w, convolution90::Forward p) {                                           \
    convolution90::forward<halo::Normed<T>, true>(y, parts, bias, shift, residual, {{&x, &w}, {norm_scale, norm_shift}}, p); \
  }                                                                                                                  \
  REGISTER_KERNEL(conv2d_fwd_10_normed_halo_128_moments_##dtype)
FOR_EACH_HALF(ENTRY)
