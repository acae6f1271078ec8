// dx = dy f'(x), element by element; f is SiLU, GELU (by erf) or QuickGELU.
//
// dx, dy, x: [len]. One thread for 16 bytes of dx, and the fast sigmoid. Wants samples of whole 16 bytes.
#include "math.cuh"
#include "vector.cuh"

namespace {

struct Params {
  int packs;
};

template <class F, class T>
ARCH_FN void activation(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x, Params p) {
  constexpr int N = vec::WIDTH<T>;
  const u32 pack = blockIdx.x * blockDim.x + threadIdx.x;
  if (pack >= static_cast<u32>(p.packs)) return;
  const size_t at = static_cast<size_t>(pack) * N;
  float v[N], d[N];
  vec::load(v, x + at);
  vec::load(d, dy + at);
#pragma unroll
  for (int i = 0; i < N; ++i) d[i] *= F::slope(v[i]);
  vec::store(dx + at, d);
}

}  // namespace

#define ENTRY_OF(F, name, T, dtype)                                                        \
  extern "C" __global__ void __launch_bounds__(256)                                        \
      activation_vjp_2_vector_##name##_##dtype(T* dx, const T* dy, const T* x, Params p) { \
    activation<math::F>(dx, dy, x, p);                                                     \
  }                                                                                        \
  REGISTER_KERNEL(activation_vjp_2_vector_##name##_##dtype)
#define ENTRY(T, dtype)              \
  ENTRY_OF(FastSilu, silu, T, dtype) \
  ENTRY_OF(Gelu, gelu, T, dtype)     \
  ENTRY_OF(FastQuickGelu, quick_gelu, T, dtype)
FOR_EACH_DTYPE(ENTRY)
