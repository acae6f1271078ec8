// dz = dy (z + o) / |z + o|, 0 where that is 0, of complex numbers, whose real parts lie before the imaginary ones in
// each line.
//
// dz, z: [len / inner, 2, inner], dy: [len], o: [size / inner, 2, inner] for all samples. One thread an element of dy.
#include "arch.cuh"

namespace {

struct Params {
  int len, size, inner;
};

// Where the real part of number i lies.
ARCH_FN size_t real(u32 i, Params p) { return static_cast<size_t>(i / p.inner) * 2 * p.inner + i % p.inner; }

ARCH_FN void modulus(float* __restrict__ dz, const float* __restrict__ dy, const float* __restrict__ z,
                     const float* __restrict__ o, Params p) {
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= static_cast<u32>(p.len)) return;
  dz += real(i, p);
  z += real(i, p);
  o += real(i % p.size, p);
  const float re = z[0] + o[0], im = z[p.inner] + o[p.inner];
  const float y = sqrtf(re * re + im * im);
  const float slope = y == 0.0f ? 0.0f : dy[i] / y;  // a NaN stays
  dz[0] = slope * re;
  dz[p.inner] = slope * im;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    modulus_vjp_1_plain_f32(float* dz, const float* dy, const float* z, const float* o, Params p) {
  modulus(dz, dy, z, o, p);
}
REGISTER_KERNEL(modulus_vjp_1_plain_f32)
