// y = x w^T + bias + residual, on tensor cores
//
// y, residual: [rows, m], x: [rows, k], w: [m, k], bias: [m]. A block computes a tile of y, see tile.cuh; both operands
// lie along the depth k, so ldmatrix reads them as they are. k and m are multiples of 8. The parts are tile sizes.
#include "tile.cuh"

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
  tile::multiply<T, S>(acc, a, b, p.k, smem);
  tile::store<S>(tile::Output<T, T>{y, bias, nullptr, residual, p.rows, p.m, 1}, acc, row, col, smem);
}

}  // namespace

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                                            \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)                           \
      name(T* y, const T* x, const T* w, const float* bias, const T* residual, Params p) {                         \
    forward<tile::Shape<SIZE, SIZE>>(y, x, w, bias, residual, p);                                                  \
  }                                                                                                                \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                     \
  ENTRY_OF(linear_fwd_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(linear_fwd_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
