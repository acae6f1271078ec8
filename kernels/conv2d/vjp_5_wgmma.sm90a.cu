// dx[q, i] = bias[i] + sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], by wgmma (sm_90a)
//
// dx: [n, h, w, i], dy: [n, ho, wo, o], w: [k, k, i, o], bias: [i]. The implicit product of vjp_2_tensor_cores.cu, see
// warpgroup.cuh. Stride 1, any k and padding; i and o are multiples of 8. The parts are columns of a tile.
#include "taps.cuh"
#include "warpgroup.cuh"

namespace {

struct Params {
  int rows;  // pixels of dx, of all samples
  int x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

template <class S, class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const float* __restrict__ bias,
                 const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  const auto taps = taps::Taps::all(p.k);
  taps::Pixels<T, S, -1> a({dy, p.y_height, p.y_width, p.outputs}, taps,
                           {p.rows, p.x_height, p.x_width, 1, p.before, p.before}, row);
  taps::Weights<T, S> b(w, taps, p.inputs, p.outputs, col);
  float acc[S::I][S::J][4];
  warpgroup::multiply<T, S>(acc, a, b, p.k * p.k * p.outputs, smem);
  tile::store<S>(tile::Output<T, T>{dx, bias, nullptr, nullptr, p.rows, p.inputs, 1}, acc, row, col, smem);
}

}  // namespace

#define ENTRY_OF(name, T, COLS)                                                  \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)  \
      name(T* dx, const T* dy, const T* w, const float* bias, Params p) {        \
    vjp<warpgroup::Shape<COLS>>(dx, dy, w, bias, p);                             \
  }                                                                              \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                             \
  ENTRY_OF(conv2d_vjp_5_wgmma_128_##dtype, T, 128) \
  ENTRY_OF(conv2d_vjp_5_wgmma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
