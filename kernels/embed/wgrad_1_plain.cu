// dtable[v] = the sum of dy[i] over the tokens i with ids[i] = v, dpositions[p] = that over those with i % t = p, in the
// order of the tokens; zero where there are none.
//
// dtable: f32 [v, c], dpositions: f32 [positions, c], dy: [tokens, c], ids: i32 [tokens]. One block a row of dtable, then
// one a row of dpositions; one thread a column. Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int tokens, t, v, c;
};

template <class T>
ARCH_FN void wgrad(float* __restrict__ dtable, float* __restrict__ dpositions, const T* __restrict__ dy,
                   const int* __restrict__ ids, Params p) {
  const int row = static_cast<int>(blockIdx.x);
  const bool of_table = row < p.v;
  const int wanted = of_table ? row : row - p.v;
  float* out = (of_table ? dtable : dpositions) + static_cast<size_t>(wanted) * p.c;
  for (int c = threadIdx.x; c < p.c; c += blockDim.x) {
    float sum = 0.0f;
    for (int i = 0; i < p.tokens; ++i)
      if ((of_table ? ids[i] : i % p.t) == wanted) sum += arch::to_f32(dy[static_cast<size_t>(i) * p.c + c]);
    out[c] = sum;
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                                           \
      embed_wgrad_1_plain_##dtype(float* dtable, float* dpositions, const T* dy, const int* ids, Params p) {  \
    wgrad(dtable, dpositions, dy, ids, p);                                                                    \
  }                                                                                                           \
  REGISTER_KERNEL(embed_wgrad_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
