// y[g] = sum over r of x[g, r].
//
// y: [groups, c], f32 or of x's type; x: [groups, rows, c]. One block a group and column. Any sizes. Grid: c, groups.
#include "reduce.cuh"

namespace {

struct Params {
  int rows, c;
};

template <class To, class T> ARCH_FN void sum(To* __restrict__ y, const T* __restrict__ x, Params p) {
  SHARED_ARRAY(float, part, reduce::MAX_WARPS);
  x += static_cast<size_t>(blockIdx.y) * p.rows * p.c + blockIdx.x;  // (rows) of pitch c
  float sum = 0.0f;
  for (int r = threadIdx.x; r < p.rows; r += blockDim.x) sum += arch::to_f32(x[static_cast<size_t>(r) * p.c]);
  sum = reduce::block_sum(sum, part);
  if (threadIdx.x == 0) y[static_cast<size_t>(blockIdx.y) * p.c + blockIdx.x] = arch::from_f32<To>(sum);
}

}  // namespace

#define ENTRY(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256) sum_rows_1_plain_wide_##dtype(float* y, const T* x, Params p) { \
    sum(y, x, p);                                                                                                  \
  }                                                                                                                \
  REGISTER_KERNEL(sum_rows_1_plain_wide_##dtype)                                                                   \
  extern "C" __global__ void __launch_bounds__(256) sum_rows_1_plain_same_##dtype(T* y, const T* x, Params p) {    \
    sum(y, x, p);                                                                                                  \
  }                                                                                                                \
  REGISTER_KERNEL(sum_rows_1_plain_same_##dtype)
FOR_EACH_DTYPE(ENTRY)
