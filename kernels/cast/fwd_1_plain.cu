// y = x in another type: from a 16-bit type to f32 (widen), or from f32 to nearest even (narrow).
//
// y, x: [len]. One thread an element. Any length.
#include "arch.cuh"

namespace {

struct Params {
  int len;
};

template <class To, class From> ARCH_FN void cast(To* __restrict__ y, const From* __restrict__ x, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < static_cast<size_t>(p.len)) y[i] = arch::from_f32<To>(arch::to_f32(x[i]));
}

}  // namespace

#define ENTRY(T, dtype)                                                                                             \
  extern "C" __global__ void __launch_bounds__(256) cast_fwd_1_plain_widen_##dtype(float* y, const T* x, Params p) {  \
    cast(y, x, p);                                                                                                  \
  }                                                                                                                 \
  REGISTER_KERNEL(cast_fwd_1_plain_widen_##dtype)                                                                   \
  extern "C" __global__ void __launch_bounds__(256) cast_fwd_1_plain_narrow_##dtype(T* y, const float* x, Params p) { \
    cast(y, x, p);                                                                                                  \
  }                                                                                                                 \
  REGISTER_KERNEL(cast_fwd_1_plain_narrow_##dtype)
FOR_EACH_HALF(ENTRY)
