// y[i] = table[ids[i]] + positions[i % t]; an id outside the table gives NaN.
//
// y: [tokens, c], ids: i32 [tokens], table: f32 [v, c], positions: f32 [at least t, c]; tokens is a multiple of t.
// One thread an element of y. Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int tokens, t, v, c;
};

template <class T>
ARCH_FN void embed(T* __restrict__ y, const int* __restrict__ ids, const float* __restrict__ table,
                   const float* __restrict__ positions, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t token = i / p.c, c = i % p.c;
  if (token >= static_cast<size_t>(p.tokens)) return;
  const int id = ids[token];
  const bool known = 0 <= id && id < p.v;
  const float row = known ? table[static_cast<size_t>(id) * p.c + c] : __uint_as_float(0x7fffffffu);
  y[i] = arch::from_f32<T>(row + positions[token % p.t * p.c + c]);
}

}  // namespace

#define ENTRY(T, dtype)                                                                                          \
  extern "C" __global__ void __launch_bounds__(256)                                                              \
      embed_tokens_1_plain_##dtype(T* y, const int* ids, const float* table, const float* positions, Params p) { \
    embed(y, ids, table, positions, p);                                                                          \
  }                                                                                                              \
  REGISTER_KERNEL(embed_tokens_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
