// sum = the sum of x[i]^2, plus onto where that is not null.
//
// sum, onto: f32 [1]; x: [len]. One block, which adds up in double. Any length.
#include "reduce.cuh"

namespace {

struct Params {
  int len;
};

template <class T>
ARCH_FN void squares(float* __restrict__ sum, const T* __restrict__ x, const float* __restrict__ onto, Params p) {
  SHARED_ARRAY(double, part, reduce::MAX_WARPS);
  double all = 0.0;
  for (size_t i = threadIdx.x; i < static_cast<size_t>(p.len); i += blockDim.x) {
    const double v = arch::to_f32(x[i]);
    all += v * v;
  }
  all = reduce::block_sum(all, part);
  if (threadIdx.x == 0) *sum = static_cast<float>(all + (onto ? *onto : 0.0f));
}

}  // namespace

#define ENTRY(T, dtype)                                                                          \
  extern "C" __global__ void __launch_bounds__(256) sum_squares_1_plain_##dtype(float* sum, const T* x, \
                                                                                const float* onto, Params p) { \
    squares(sum, x, onto, p);                                                                    \
  }                                                                                              \
  REGISTER_KERNEL(sum_squares_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
