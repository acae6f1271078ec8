// y = x w^T + bias + residual, by wgmma (sm_90a)
//
// y, residual: [rows, m], x: [rows, k], w: [m, k], bias: [m]. The product of fwd_2_tensor_cores.cu, whose instructions
// read both operands from shared memory and run while the next steps are copied, see warpgroup.cuh. k and m are
// multiples of 8. The parts are columns of a tile.
#include "warpgroup.cuh"

namespace {

struct Params {
  int rows, k, m;
};

template <class S, class T>
ARCH_FN void forward(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w,
                     const float* __restrict__ bias, const T* __restrict__ residual, const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  tile::Rows<T, S, S::ROWS> a(x, p.rows, p.k, row);
  tile::Rows<T, S, S::COLS> b(w, p.m, p.k, col);
  float acc[S::I][S::J][4];
  warpgroup::multiply<T, S>(acc, a, b, p.k, smem);
  tile::store<S>(tile::Output<T, T>{y, bias, nullptr, residual, p.rows, p.m, 1}, acc, row, col, smem);
}

}  // namespace

#define ENTRY_OF(name, T, COLS)                                                             \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)             \
      name(T* y, const T* x, const T* w, const float* bias, const T* residual, Params p) {  \
    forward<warpgroup::Shape<COLS>>(y, x, w, bias, residual, p);                            \
  }                                                                                         \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                             \
  ENTRY_OF(linear_fwd_3_wgmma_128_##dtype, T, 128) \
  ENTRY_OF(linear_fwd_3_wgmma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
