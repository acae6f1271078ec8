// y[g] = sum over r of x[g, r].
//
// y: [groups, c], f32 or of x's type; x: [groups, rows, c]. Two launches: the sums of chunks of rows, f32
// [groups, chunks, c], by `packs` of 16 bytes or `ones`; and theirs, of a single chunk, by `ones` or `narrow`.
// Grid: chunks, tiles of columns, groups; 256 threads.
#include "columns.cuh"

namespace {

struct Params {
  int rows, c, chunk;
};

template <int N, class To, class T> ARCH_FN void sum(To* __restrict__ y, const T* __restrict__ x, Params p) {
  SHARED_ARRAY(float, part, columns::PART<N>);
  const int first = blockIdx.x * p.chunk, rows = min(p.rows - first, p.chunk);
  y += (static_cast<size_t>(blockIdx.z) * gridDim.x + blockIdx.x) * p.c;  // (c) this chunk's
  x += (static_cast<size_t>(blockIdx.z) * p.rows + first) * p.c;          // (rows, c) this chunk
  columns::sum<N>(y, x, rows, p.c, part);
}

}  // namespace

#define ENTRY(T, dtype)                                                                                             \
  extern "C" __global__ void __launch_bounds__(256) sum_rows_2_chunks_packs_##dtype(float* y, const T* x, Params p) { \
    sum<vec::WIDTH<T>>(y, x, p);                                                                                    \
  }                                                                                                                 \
  REGISTER_KERNEL(sum_rows_2_chunks_packs_##dtype)                                                                  \
  extern "C" __global__ void __launch_bounds__(256) sum_rows_2_chunks_ones_##dtype(float* y, const T* x, Params p) { \
    sum<1>(y, x, p);                                                                                                \
  }                                                                                                                 \
  REGISTER_KERNEL(sum_rows_2_chunks_ones_##dtype)
FOR_EACH_DTYPE(ENTRY)

#define NARROW(T, dtype)                                                                                         \
  extern "C" __global__ void __launch_bounds__(256) sum_rows_2_chunks_narrow_##dtype(T* y, const float* x, Params p) { \
    sum<1>(y, x, p);                                                                                             \
  }                                                                                                              \
  REGISTER_KERNEL(sum_rows_2_chunks_narrow_##dtype)
FOR_EACH_HALF(NARROW)
