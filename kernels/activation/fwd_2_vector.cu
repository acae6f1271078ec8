// y = f(x), element by element; f is SiLU, GELU (by erf) or QuickGELU.
//
// y, x: [len]. One thread for 16 bytes of y, and the fast sigmoid. Wants samples of whole 16 bytes.
#include "math.cuh"
#include "vector.cuh"

namespace {

struct Params {
  int packs;
};

template <class F, class T> ARCH_FN void activation(T* __restrict__ y, const T* __restrict__ x, Params p) {
  constexpr int N = vec::WIDTH<T>;
  const u32 pack = blockIdx.x * blockDim.x + threadIdx.x;
  if (pack >= static_cast<u32>(p.packs)) return;
  const size_t at = static_cast<size_t>(pack) * N;
  float v[N];
  vec::load(v, x + at);
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = F::of(v[i]);
  vec::store(y + at, v);
}

}  // namespace

#define ENTRY_OF(F, name, T, dtype)                                          \
  extern "C" __global__ void __launch_bounds__(256)                          \
      activation_fwd_2_vector_##name##_##dtype(T* y, const T* x, Params p) { \
    activation<math::F>(y, x, p);                                            \
  }                                                                          \
  REGISTER_KERNEL(activation_fwd_2_vector_##name##_##dtype)
#define ENTRY(T, dtype)              \
  ENTRY_OF(FastSilu, silu, T, dtype) \
  ENTRY_OF(Gelu, gelu, T, dtype)     \
  ENTRY_OF(FastQuickGelu, quick_gelu, T, dtype)
FOR_EACH_DTYPE(ENTRY)
