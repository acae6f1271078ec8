// y[n, i] = sum over j of a[n, j] x_j[n, i], + s[n] normal(address[n], i): every element-wise line of a sampler's step
// in one pass. The noise is drawn in registers and never stored.
//
// y, x_j: [samples, size], one to four of them; a: [samples, terms], with addresses: [samples, 5] one column more, s.
// One thread the four elements that one Philox counter gives; blockIdx.y is the sample.
#include "philox.cuh"

namespace {

struct Params {
  int size, terms;
};

static constexpr int TERMS = 4;

template <class T>
ARCH_FN void combine(T* __restrict__ y, const float* __restrict__ a, const T* __restrict__ const (&x)[TERMS],
                     const int* __restrict__ addresses, Params p) {
  const size_t sample = blockIdx.y;
  const u32 block = blockIdx.x * blockDim.x + threadIdx.x;
  const size_t first = static_cast<size_t>(block) * philox::BLOCK;
  if (first >= static_cast<size_t>(p.size)) return;
  a += sample * (p.terms + (addresses ? 1 : 0));
  float normal[philox::BLOCK] = {};
  if (addresses) philox::normals(normal, addresses + sample * philox::WORDS, block);
#pragma unroll
  for (int e = 0; e < philox::BLOCK; ++e) {
    const size_t i = first + e;
    if (i >= static_cast<size_t>(p.size)) continue;
    const size_t at = sample * p.size + i;
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < TERMS; ++j) {
      if (x[j]) sum += a[j] * arch::to_f32(x[j][at]);
    }
    if (addresses) sum += a[p.terms] * normal[e];
    y[at] = arch::from_f32<T>(sum);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                        \
  extern "C" __global__ void __launch_bounds__(256)                                                            \
      combine_fwd_1_plain_##dtype(T* y, const float* a, const T* x0, const T* x1, const T* x2, const T* x3,    \
                                  const int* addresses, Params p) {                                            \
    combine(y, a, {x0, x1, x2, x3}, addresses, p);                                                             \
  }                                                                                                            \
  REGISTER_KERNEL(combine_fwd_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
