// dx[q, i] = bias[i] + sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], at stride 1, and the sums that
// the vjp of the group norm before it begins with, by TMA and wgmma (sm_90a)
//
// dx, x: [n, h, w, i], dy: [n, h, w, o], w: [3, 3, i, o], bias: [i]; of the norm: mean, rstd: f32 [n, groups], norm_w,
// norm_b: f32 [i]. The product of vjp_10_halo; the sums are those of group_norm/vjp_2_chunks, of dx as it is stored, in
// a part for each tile, see summed90.cuh. h and w are multiples of 16, i and o of 8; a group is 4, 8 or 16 channels.
#include "summed90.cuh"

#define ENTRY(T, dtype)                                                                                     \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1) conv2d_vjp_11_summed_halo_128_##dtype(  \
          T* dx, Two* part, const T* x, const float* mean, const float* rstd, const float* norm_w,          \
          const float* norm_b, const float* bias, const __grid_constant__ TensorMap dy,                     \
          const __grid_constant__ TensorMap w, halo::Params p) {                                            \
    halo::vjp<halo::Boxes<true, T>>(dx, bias, {&dy, &w}, {part, nullptr, x, mean, rstd, norm_w, norm_b, 0, 0, 0}, p); \
  }                                                                                                         \
  REGISTER_KERNEL(conv2d_vjp_11_summed_halo_128_##dtype)
FOR_EACH_HALF(ENTRY)
