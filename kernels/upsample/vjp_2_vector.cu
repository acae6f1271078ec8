// dx[i, j] = dy[2i, 2j] + dy[2i, 2j + 1] + dy[2i + 1, 2j] + dy[2i + 1, 2j + 1]: each pixel gets the sum of its copies.
//
// dx: [rows, w, c], dy: [2 rows, 2w, c], where rows are the image rows of all samples. One thread for 16 bytes of dx.
// Wants c to be whole 16 bytes; it counts packs here.
#include "vector.cuh"

namespace {

struct Params {
  int packs, w, c;
};

template <class T> ARCH_FN void upsample(T* __restrict__ dx, const T* __restrict__ dy, Params p) {
  constexpr int N = vec::WIDTH<T>;
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= static_cast<u32>(p.packs)) return;
  const u32 pixel = i / p.c, row = pixel / p.w, col = pixel % p.w;
  const T* const above = dy + ((4 * static_cast<size_t>(row) * p.w + 2 * col) * p.c + i % p.c) * N;
  const T* const below = above + 2 * static_cast<size_t>(p.w) * p.c * N;
  float v[4][N];
  vec::load(v[0], above);
  vec::load(v[1], above + p.c * N);
  vec::load(v[2], below);
  vec::load(v[3], below + p.c * N);
#pragma unroll
  for (int k = 0; k < N; ++k) v[0][k] = v[0][k] + v[1][k] + v[2][k] + v[3][k];
  vec::store(dx + static_cast<size_t>(i) * N, v[0]);
}

}  // namespace

#define ENTRY(T, dtype)                                             \
  extern "C" __global__ void __launch_bounds__(256)                 \
      upsample_vjp_2_vector_##dtype(T* dx, const T* dy, Params p) { \
    upsample(dx, dy, p);                                            \
  }                                                                 \
  REGISTER_KERNEL(upsample_vjp_2_vector_##dtype)
FOR_EACH_DTYPE(ENTRY)
