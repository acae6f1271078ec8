// dx = dy w, by wgmma (sm_90a)
//
// dx: [rows, k], dy: [rows, m], w: [m, k]. The product of vjp_2_tensor_cores.cu, see warpgroup.cuh; w lies across the
// depth m, and its descriptor says so. k and m are multiples of 8. The parts are columns of a tile.
#include "warpgroup.cuh"

namespace {

struct Params {
  int rows, k, m;
};

template <class S, class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  tile::Rows<T, S, S::ROWS> a(dy, p.rows, p.m, row);
  tile::Columns<T, S, S::COLS> b(w, p.m, p.k, col);
  float acc[S::I][S::J][4];
  warpgroup::multiply<T, S>(acc, a, b, p.m, smem);
  tile::store<S>(tile::Output<T, T>{dx, nullptr, nullptr, nullptr, p.rows, p.k, 1}, acc, row, col, smem);
}

}  // namespace

#define ENTRY_OF(name, T, COLS)                                                  \
  extern "C" __global__ void __launch_bounds__(warpgroup::Shape<COLS>::THREADS)  \
      name(T* dx, const T* dy, const T* w, Params p) {                           \
    vjp<warpgroup::Shape<COLS>>(dx, dy, w, p);                                   \
  }                                                                              \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                             \
  ENTRY_OF(linear_vjp_3_wgmma_128_##dtype, T, 128) \
  ENTRY_OF(linear_vjp_3_wgmma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
