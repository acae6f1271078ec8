// y[p, o] = bias[o] + shift[n, o] + residual[p, o] + sum over taps and inputs of x[source(p, tap), i] w[tap, i, o],
// by wgmma (sm_90a)
//
// y, residual: [n, ho, wo, o], x: [n, h, w, i], w: [k, k, i, o], bias: [o], shift: [n, o]. The implicit product of
// fwd_2_tensor_cores.cu, whose instructions read both operands from shared memory and run while the next pixels are
// gathered, see warpgroup.cuh; w lies across the depth, and its descriptor says so. Any k, stride and padding; i and o
// are multiples of 8. The parts are columns of a tile.
#include "taps.cuh"
#include "warpgroup.cuh"

namespace {

struct Params {
  int rows;  // pixels of y, of all samples
  int x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

template <class S, class T>
ARCH_FN void forward(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w,
                     const float* __restrict__ bias, const T* __restrict__ shift, const T* __restrict__ residual,
                     const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  const int pixels = p.y_height * p.y_width, depth = p.k * p.k * p.inputs;
  taps::Pixels<T, S, 1> a({x, p.x_height, p.x_width, p.inputs}, taps::Taps::all(p.k),
                          {p.rows, p.y_height, p.y_width, p.stride, -p.before, -p.before}, row);
  tile::Columns<T, S, S::COLS> b(w, depth, p.outputs, col);
  float acc[S::I][S::J][4];
  warpgroup::multiply<T, S>(acc, a, b, depth, smem);
  tile::store<S>(tile::Output<T, T>{y, bias, shift, residual, p.rows, p.outputs, pixels}, acc, row, col, smem);
}

}  // namespace

#define ENTRY_OF(name, T, COLS)                                                                             \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)                             \
      name(T* y, const T* x, const T* w, const float* bias, const T* shift, const T* residual, Params p) {  \
    forward<warpgroup::Shape<COLS>>(y, x, w, bias, shift, residual, p);                                     \
  }                                                                                                         \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                             \
  ENTRY_OF(conv2d_fwd_5_wgmma_128_##dtype, T, 128) \
  ENTRY_OF(conv2d_fwd_5_wgmma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
