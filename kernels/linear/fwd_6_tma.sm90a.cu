// y = x w^T + bias + residual, by TMA and wgmma (sm_90a)
//
// y, residual: [rows, m], x: [rows, k], w: [m, k], bias: [m]. The product of fwd_3_wgmma, whose operands are boxes that
// the copy engine takes, see patches90.cuh; both lie along the depth k. k and m are multiples of 8. The parts are
// columns of a tile.
#include "linear.cuh"
#include "patches90.cuh"

namespace {

template <int COLS, class T>
ARCH_FN void forward(T* __restrict__ y, const float* __restrict__ bias, const T* __restrict__ residual,
                     const TensorMap* x, const TensorMap* w, const linear::Params& p) {
  const tile::Output<T, T> out{y, bias, nullptr, residual, p.rows, p.m, 1};
  patches::product<COLS, true, T>(out, x, w, p.k);
}

}  // namespace

#define ENTRY_OF(name, T, COLS)                                                                    \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1)                                \
      name(T* y, const float* bias, const T* residual, const __grid_constant__ TensorMap x,        \
           const __grid_constant__ TensorMap w, linear::Params p) {                                \
    forward<COLS>(y, bias, residual, &x, &w, p);                                                   \
  }                                                                                                \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                          \
  ENTRY_OF(linear_fwd_6_tma_128_##dtype, T, 128) \
  ENTRY_OF(linear_fwd_6_tma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
