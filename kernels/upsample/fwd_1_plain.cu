// y[i, j] = x[i / 2, j / 2]: twice as high and wide, nearest neighbour.
//
// y: [2 rows, 2w, c], x: [rows, w, c], where rows are the image rows of all samples. One thread an element of y.
// Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int rows, w, c;
};

template <class T> ARCH_FN void upsample(T* __restrict__ y, const T* __restrict__ x, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t pixel = i / p.c, row = pixel / (2 * p.w), col = pixel % (2 * p.w);
  if (row < 2 * static_cast<size_t>(p.rows)) y[i] = x[(row / 2 * p.w + col / 2) * p.c + i % p.c];
}

}  // namespace

#define ENTRY(T, dtype)                                          \
  extern "C" __global__ void __launch_bounds__(256)              \
      upsample_fwd_1_plain_##dtype(T* y, const T* x, Params p) { \
    upsample(y, x, p);                                           \
  }                                                              \
  REGISTER_KERNEL(upsample_fwd_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
