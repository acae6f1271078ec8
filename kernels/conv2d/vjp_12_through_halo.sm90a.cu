// dx[q, i] = bias[i] + sum over taps and outputs of d[target(q, tap), o] w[tap, i, o], where d = du scale[n, o] + y
// slope[n, o] + offset[n, o], du = dy times the slope of SiLU at y scale[n, o] + shift[n, o], at stride 1, by TMA and
// wgmma (sm_90a)
//
// dx: [n, h, w, i], dy, y: [n, h, w, o], w: [3, 3, i, o], bias: [i], scale, shift, slope, offset: f32 [n, o]. The product
// of vjp_10_halo, of what a norm of y makes of the cotangent behind it: d is made in shared memory, see through90.cuh. h
// and w are multiples of 16, i and o of 8. The parts are columns of a tile, and whether the sums for the norm before it are
// written as vjp_11_summed_halo does.
#include "summed90.cuh"
#include "through90.cuh"

#define ENTRY(T, dtype)                                                                                                \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1) conv2d_vjp_12_through_halo_128_##dtype(            \
          T* dx, const T* y, const float* scale, const float* shift, const float* slope, const float* offset,          \
          const float* bias, const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap w,                \
          convolution90::Vjp p) {                                                                                      \
    const halo::Backward<T>::Operands norm{y, scale, shift, slope, offset};                                            \
    convolution90::vjp<halo::Through<T>, false>(dx, nullptr, bias, {{&dy, &w}, norm}, p);                              \
  }                                                                                                                    \
  REGISTER_KERNEL(conv2d_vjp_12_through_halo_128_##dtype)                                                              \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1) conv2d_vjp_12_through_halo_128_summed_##dtype(     \
          T* dx, Two* part, const T* x, const float* mean, const float* rstd, const float* norm_w,                     \
          const float* norm_b, const T* y, const float* scale, const float* shift, const float* slope,                 \
          const float* offset, const float* bias, const __grid_constant__ TensorMap dy,                                \
          const __grid_constant__ TensorMap w, halo::Params p) {                                                       \
    const halo::Backward<T>::Operands norm{y, scale, shift, slope, offset};                                            \
    halo::vjp<halo::Through<T>>(dx, bias, {{&dy, &w}, norm}, {part, nullptr, x, mean, rstd, norm_w, norm_b, 0, 0, 0}, p); \
  }                                                                                                                    \
  REGISTER_KERNEL(conv2d_vjp_12_through_halo_128_summed_##dtype)
FOR_EACH_HALF(ENTRY)
