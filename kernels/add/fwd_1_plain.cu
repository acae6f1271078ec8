// y = a + b, element by element.
//
// y, a, b: [len]. One thread an element. Any length.
#include "arch.cuh"

namespace {

struct Params {
  int len;
};

template <class T> ARCH_FN void add(T* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < static_cast<size_t>(p.len)) y[i] = arch::from_f32<T>(arch::to_f32(a[i]) + arch::to_f32(b[i]));
}

}  // namespace

#define ENTRY(T, dtype)                                                                                  \
  extern "C" __global__ void __launch_bounds__(256) add_fwd_1_plain_##dtype(T* y, const T* a, const T* b, Params p) { \
    add(y, a, b, p);                                                                                     \
  }                                                                                                      \
  REGISTER_KERNEL(add_fwd_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
