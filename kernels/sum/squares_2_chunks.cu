// sum = the sum of x[i]^2, plus onto where that is not null.
//
// sum, onto: f32 [1]; x: [len], whole 16 bytes. Two launches: `part` leaves the sum of each chunk, in double, a block a
// chunk; `fold`, one block, adds them up.
#include "reduce.cuh"
#include "vector.cuh"

namespace {

struct Params {
  int packs, chunk;  // 16 bytes each: all, and those of a block
};

template <class T> ARCH_FN void squares(double* __restrict__ sums, const T* __restrict__ x, Params p) {
  constexpr int N = vec::WIDTH<T>;
  SHARED_ARRAY(double, part, reduce::MAX_WARPS);
  const int first = blockIdx.x * p.chunk, packs = min(p.packs - first, p.chunk);
  x += static_cast<size_t>(first) * N;  // (packs, N) this chunk
  double all = 0.0;
#pragma unroll 4
  for (int i = threadIdx.x; i < packs; i += blockDim.x) {
    float v[N], sum = 0.0f;
    vec::load(v, x + static_cast<size_t>(i) * N);
#pragma unroll
    for (int k = 0; k < N; ++k) sum += v[k] * v[k];
    all += sum;
  }
  all = reduce::block_sum(all, part);
  if (threadIdx.x == 0) sums[blockIdx.x] = all;
}

ARCH_FN void fold(float* __restrict__ sum, const double* __restrict__ sums, const float* __restrict__ onto,
                  int chunks) {
  SHARED_ARRAY(double, part, reduce::MAX_WARPS);
  double all = 0.0;
  for (int i = threadIdx.x; i < chunks; i += blockDim.x) all += sums[i];
  all = reduce::block_sum(all, part);
  if (threadIdx.x == 0) *sum = static_cast<float>(all + (onto ? *onto : 0.0f));
}

struct Chunks {
  int chunks;
};

}  // namespace

#define ENTRY(T, dtype)                                                                                             \
  extern "C" __global__ void __launch_bounds__(256) sum_squares_2_chunks_part_##dtype(double* sums, const T* x, Params p) { \
    squares(sums, x, p);                                                                                            \
  }                                                                                                                 \
  REGISTER_KERNEL(sum_squares_2_chunks_part_##dtype)
FOR_EACH_DTYPE(ENTRY)

extern "C" __global__ void __launch_bounds__(256)
    sum_squares_2_chunks_fold_f32(float* sum, const double* sums, const float* onto, Chunks p) {
  fold(sum, sums, onto, p.chunks);
}
REGISTER_KERNEL(sum_squares_2_chunks_fold_f32)
