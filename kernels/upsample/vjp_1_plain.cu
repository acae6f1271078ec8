// dx[i, j] = dy[2i, 2j] + dy[2i, 2j + 1] + dy[2i + 1, 2j] + dy[2i + 1, 2j + 1]: each pixel gets the sum of its copies.
//
// dx: [rows, w, c], dy: [2 rows, 2w, c], where rows are the image rows of all samples. One thread an element of dx.
// Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int rows, w, c;
};

template <class T> ARCH_FN void upsample(T* __restrict__ dx, const T* __restrict__ dy, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t pixel = i / p.c, row = pixel / p.w, col = pixel % p.w;
  if (row >= static_cast<size_t>(p.rows)) return;
  const T* const above = dy + (2 * row * 2 * p.w + 2 * col) * p.c + i % p.c;
  const T* const below = above + static_cast<size_t>(2 * p.w) * p.c;
  dx[i] = arch::from_f32<T>(arch::to_f32(above[0]) + arch::to_f32(above[p.c]) + arch::to_f32(below[0]) +
                            arch::to_f32(below[p.c]));
}

}  // namespace

#define ENTRY(T, dtype)                                            \
  extern "C" __global__ void __launch_bounds__(256)                \
      upsample_vjp_1_plain_##dtype(T* dx, const T* dy, Params p) { \
    upsample(dx, dy, p);                                           \
  }                                                                \
  REGISTER_KERNEL(upsample_vjp_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
