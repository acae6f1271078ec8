// z = mean + exp(logvar / 2) n and kl = (mean^2 + exp(logvar) - 1 - logvar) / 2, element by element, with logvar
// clamped to [-30, 20].
//
// z, kl, mean, logvar, n: [len]. One thread an element. Any length.
#include "arch.cuh"

namespace {

struct Params {
  int len;
};

template <class T>
ARCH_FN void sample(T* __restrict__ z, T* __restrict__ kl, const T* __restrict__ mean, const T* __restrict__ logvar,
                    const T* __restrict__ n, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<size_t>(p.len)) return;
  const float m = arch::to_f32(mean[i]);
  const float l = fminf(fmaxf(arch::to_f32(logvar[i]), -30.0f), 20.0f);
  z[i] = arch::from_f32<T>(m + expf(0.5f * l) * arch::to_f32(n[i]));
  kl[i] = arch::from_f32<T>(0.5f * (m * m + expf(l) - 1.0f - l));
}

}  // namespace

#define ENTRY(T, dtype)                                                                     \
  extern "C" __global__ void __launch_bounds__(256) gaussian_fwd_1_plain_##dtype(           \
      T* z, T* kl, const T* mean, const T* logvar, const T* n, Params p) {                  \
    sample(z, kl, mean, logvar, n, p);                                                      \
  }                                                                                         \
  REGISTER_KERNEL(gaussian_fwd_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
