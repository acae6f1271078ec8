// dx = dy w, on tensor cores
//
// dx: [rows, k], dy: [rows, m], w: [m, k]. A block computes a tile of dx, see tile.cuh; w lies across the depth m, so
// ldmatrix transposes it on the way. k and m are multiples of 8. The parts are tile sizes.
#include "tile.cuh"

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
  tile::multiply<T, S>(acc, a, b, p.m, smem);
  tile::store<S>(tile::Output<T, T>{dx, nullptr, nullptr, nullptr, p.rows, p.k, 1}, acc, row, col, smem);
}

}  // namespace

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                   \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)  \
      name(T* dx, const T* dy, const T* w, Params p) {                                    \
    vjp<tile::Shape<SIZE, SIZE>>(dx, dy, w, p);                                           \
  }                                                                                       \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                     \
  ENTRY_OF(linear_vjp_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(linear_vjp_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
