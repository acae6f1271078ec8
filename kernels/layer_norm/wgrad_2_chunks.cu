// Gradients of the affine parameters of layer normalisation: dw = sum of dy xhat, db = sum of dy over all rows.
//
// dw, db: f32 [c]; dy, x: [rows, c]; mean, rstd: f32 [rows]. Two launches: `part` leaves the sums of chunks of rows, f32
// [2, chunks, c]; `fold` adds them up. Wants c to be whole 16 bytes.
// Grid: chunks, tiles of columns; for `fold` 1, tiles, 2; 256 threads.
#include "columns.cuh"

namespace {

struct Params {
  int rows, c, chunk;
};

template <class T>
ARCH_FN void sums(float* __restrict__ part, const T* __restrict__ dy, const T* __restrict__ x,
                  const float* __restrict__ mean, const float* __restrict__ rstd, Params p) {
  constexpr int N = vec::WIDTH<T>;
  SHARED_ARRAY(float, shared, 2 * columns::PART<N>);
  const int channel = columns::column<N>();
  const int first = blockIdx.x * p.chunk, end = min(p.rows - first, p.chunk) + first;
  float product[N] = {}, sum[N] = {};
  if (channel < p.c) {
#pragma unroll 2
    for (int row = first + columns::row(); row < end; row += columns::DOWN) {
      const size_t at = static_cast<size_t>(row) * p.c + channel;
      const float mu = mean[row], r = rstd[row];
      float v[N], d[N];
      vec::load(v, x + at);
      vec::load(d, dy + at);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        product[i] += d[i] * ((v[i] - mu) * r);
        sum[i] += d[i];
      }
    }
  }
  columns::fold(product, shared);
  columns::fold(sum, shared + columns::PART<N>);
  if (columns::row() == 0 && channel < p.c) {
    vec::store(part + static_cast<size_t>(blockIdx.x) * p.c + channel, product);
    vec::store(part + (static_cast<size_t>(gridDim.x) + blockIdx.x) * p.c + channel, sum);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                  \
  extern "C" __global__ void __launch_bounds__(256) layer_norm_wgrad_2_chunks_part_##dtype(float* part,  \
          const T* dy, const T* x, const float* mean, const float* rstd, Params p) {                     \
    sums(part, dy, x, mean, rstd, p);                                                                    \
  }                                                                                                      \
  REGISTER_KERNEL(layer_norm_wgrad_2_chunks_part_##dtype)
FOR_EACH_DTYPE(ENTRY)

extern "C" __global__ void __launch_bounds__(256)
    layer_norm_wgrad_2_chunks_fold_f32(float* dw, float* db, const float* part, columns::Fold p) {
  columns::fold_two(dw, db, part, p);
}
REGISTER_KERNEL(layer_norm_wgrad_2_chunks_fold_f32)
