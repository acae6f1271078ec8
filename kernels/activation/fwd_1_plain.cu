// y = f(x), element by element; f is SiLU, GELU (by erf) or QuickGELU.
//
// y, x: [len]. One thread an element. Any length.
#include "math.cuh"

namespace {

struct Params {
  int len;
};

template <class F, class T> ARCH_FN void activation(T* __restrict__ y, const T* __restrict__ x, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < static_cast<size_t>(p.len)) y[i] = arch::from_f32<T>(F::of(arch::to_f32(x[i])));
}

}  // namespace

#define ENTRY_OF(F, name, T, dtype)                                         \
  extern "C" __global__ void __launch_bounds__(256)                         \
      activation_fwd_1_plain_##name##_##dtype(T* y, const T* x, Params p) { \
    activation<math::F>(y, x, p);                                           \
  }                                                                         \
  REGISTER_KERNEL(activation_fwd_1_plain_##name##_##dtype)
#define ENTRY(T, dtype)          \
  ENTRY_OF(Silu, silu, T, dtype) \
  ENTRY_OF(Gelu, gelu, T, dtype) \
  ENTRY_OF(QuickGelu, quick_gelu, T, dtype)
FOR_EACH_DTYPE(ENTRY)
