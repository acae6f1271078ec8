// y = |z + o| of complex numbers, whose real parts lie before the imaginary ones in each line.
//
// y: [len], z: [len / inner, 2, inner], o: [size / inner, 2, inner] for all samples. One thread an element of y.
#include "arch.cuh"

namespace {

struct Params {
  int len, size, inner;
};

// Where the real part of number i lies.
ARCH_FN size_t real(u32 i, Params p) { return static_cast<size_t>(i / p.inner) * 2 * p.inner + i % p.inner; }

ARCH_FN void modulus(float* __restrict__ y, const float* __restrict__ z, const float* __restrict__ o, Params p) {
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= static_cast<u32>(p.len)) return;
  z += real(i, p);
  o += real(i % p.size, p);
  const float re = z[0] + o[0], im = z[p.inner] + o[p.inner];
  y[i] = sqrtf(re * re + im * im);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    modulus_fwd_1_plain_f32(float* y, const float* z, const float* o, Params p) {
  modulus(y, z, o, p);
}
REGISTER_KERNEL(modulus_fwd_1_plain_f32)
