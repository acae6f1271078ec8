// dx = dy f'(x), element by element; f is SiLU, GELU (by erf) or QuickGELU.
//
// dx, dy, x: [len]. One thread an element. Any length.
#include "math.cuh"

namespace {

struct Params {
  int len;
};

template <class F, class T>
ARCH_FN void activation(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < static_cast<size_t>(p.len)) dx[i] = arch::from_f32<T>(arch::to_f32(dy[i]) * F::slope(arch::to_f32(x[i])));
}

}  // namespace

#define ENTRY_OF(F, name, T, dtype)                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                       \
      activation_vjp_1_plain_##name##_##dtype(T* dx, const T* dy, const T* x, Params p) { \
    activation<math::F>(dx, dy, x, p);                                                    \
  }                                                                                       \
  REGISTER_KERNEL(activation_vjp_1_plain_##name##_##dtype)
#define ENTRY(T, dtype)          \
  ENTRY_OF(Silu, silu, T, dtype) \
  ENTRY_OF(Gelu, gelu, T, dtype) \
  ENTRY_OF(QuickGelu, quick_gelu, T, dtype)
FOR_EACH_DTYPE(ENTRY)
