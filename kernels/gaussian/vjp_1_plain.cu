// dmean = dz + weight mean, dlogvar = (dz n exp(logvar / 2) + weight (exp(logvar) - 1)) / 2, element by element;
// dlogvar is 0 where logvar was clamped to [-30, 20].
//
// dmean, dlogvar, dz, mean, logvar, n: [len]. One thread an element. Any length.
#include "arch.cuh"

namespace {

struct Params {
  int len;
  float weight;
};

template <class T>
ARCH_FN void sample(T* __restrict__ dmean, T* __restrict__ dlogvar, const T* __restrict__ dz,
                    const T* __restrict__ mean, const T* __restrict__ logvar, const T* __restrict__ n, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<size_t>(p.len)) return;
  const float l = arch::to_f32(logvar[i]), d = arch::to_f32(dz[i]);
  const bool inside = l >= -30.0f && l <= 20.0f;
  const float slope = 0.5f * (d * arch::to_f32(n[i]) * expf(0.5f * l) + p.weight * (expf(l) - 1.0f));
  dmean[i] = arch::from_f32<T>(d + p.weight * arch::to_f32(mean[i]));
  dlogvar[i] = arch::from_f32<T>(inside ? slope : 0.0f);
}

}  // namespace

#define ENTRY(T, dtype)                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) gaussian_vjp_1_plain_##dtype(                         \
      T* dmean, T* dlogvar, const T* dz, const T* mean, const T* logvar, const T* n, Params p) {          \
    sample(dmean, dlogvar, dz, mean, logvar, n, p);                                                       \
  }                                                                                                       \
  REGISTER_KERNEL(gaussian_vjp_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
