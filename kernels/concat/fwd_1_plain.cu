// y = [a, b] along the last dimension.
//
// y: [rows, ca + cb], a: [rows, ca], b: [rows, cb]. One thread an element of y. Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int rows, ca, cb;
};

template <class T> ARCH_FN void concat(T* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t row = i / (p.ca + p.cb);
  const int c = static_cast<int>(i % (p.ca + p.cb));
  if (row < static_cast<size_t>(p.rows)) y[i] = c < p.ca ? a[row * p.ca + c] : b[row * p.cb + c - p.ca];
}

}  // namespace

#define ENTRY(T, dtype)                                                    \
  extern "C" __global__ void __launch_bounds__(256)                        \
      concat_fwd_1_plain_##dtype(T* y, const T* a, const T* b, Params p) { \
    concat(y, a, b, p);                                                    \
  }                                                                        \
  REGISTER_KERNEL(concat_fwd_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
