// y = [sin(t f), cos(t f)] with f_i = 10000^(-i / (half - freq_shift)), half = dim / 2; cosines first
// when `flip`; an odd dim ends in a zero.
//
// y: [n, dim], t: f32 [n]. One thread an element of y, in double, as t f reaches a thousand radians.
#include "arch.cuh"

namespace {

struct Params {
  int n, dim, flip;
  float freq_shift;
};

template <class T> ARCH_FN void timestep(T* __restrict__ y, const float* __restrict__ t, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t n = i / p.dim;
  const int j = static_cast<int>(i % p.dim), half = p.dim / 2;
  if (n >= static_cast<size_t>(p.n)) return;
  double wave = 0.0;
  if (j < 2 * half) {
    const double log_10000 = 9.210340371976182736;
    const double angle = t[n] * exp(-log_10000 * (j % half) / (half - static_cast<double>(p.freq_shift)));
    const bool cosine = (j < half) == (p.flip != 0);
    wave = cosine ? cos(angle) : sin(angle);
  }
  y[i] = arch::from_f32<T>(static_cast<float>(wave));
}

}  // namespace

#define ENTRY(T, dtype)                                                \
  extern "C" __global__ void __launch_bounds__(256)                    \
      embed_timestep_1_plain_##dtype(T* y, const float* t, Params p) { \
    timestep(y, t, p);                                                 \
  }                                                                    \
  REGISTER_KERNEL(embed_timestep_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
