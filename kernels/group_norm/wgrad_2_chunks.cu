// Gradients of the affine parameters of group normalisation: dw = sum of du xhat, db = sum of du over samples and pixels,
// with du = dy, or dy times the slope of SiLU at u = xhat w + b when `silu`.
//
// dw, db, w, b: f32 [c]; dy, x: [n, pixels, c]; mean, rstd: f32 [n, groups]. Two launches: `part` leaves the sums of
// chunks of a sample's pixels, f32 [2, n, chunks, c]; `fold` adds them up. Wants c to be whole 16 bytes.
// Grid: chunks, tiles of columns, n; for `fold` 1, tiles, 2; 256 threads.
#include "columns.cuh"
#include "math.cuh"

namespace {

struct Params {
  int pixels, c, groups, silu, chunk;
};

template <class T>
ARCH_FN void sums(float* __restrict__ part, const T* __restrict__ dy, const T* __restrict__ x,
                  const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ w,
                  const float* __restrict__ b, Params p) {
  constexpr int N = vec::WIDTH<T>;
  SHARED_ARRAY(float, rows, 2 * columns::PART<N>);
  const int channel = columns::column<N>(), size = p.c / p.groups;
  const int first = blockIdx.x * p.chunk, pixels = min(p.pixels - first, p.chunk);
  const size_t start = (static_cast<size_t>(blockIdx.z) * p.pixels + first) * p.c + channel;  // (pixels, N) of pitch c
  const size_t group_0 = static_cast<size_t>(blockIdx.z) * p.groups;

  float product[N] = {}, sum[N] = {};  // of du (x - mean), until the end, and of du
  if (channel < p.c) {
    float mu[N], scale[N], shift[N];
    vec::load(scale, w + channel);
    vec::load(shift, b + channel);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      mu[i] = mean[group_0 + (channel + i) / size];
      scale[i] *= rstd[group_0 + (channel + i) / size];
    }
#pragma unroll 2
    for (int pixel = columns::row(); pixel < pixels; pixel += columns::DOWN) {
      float v[N], du[N];
      vec::load(v, x + start + static_cast<size_t>(pixel) * p.c);
      vec::load(du, dy + start + static_cast<size_t>(pixel) * p.c);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        v[i] -= mu[i];
        if (p.silu) du[i] *= math::fast_silu_slope(v[i] * scale[i] + shift[i]);
        product[i] += du[i] * v[i];
        sum[i] += du[i];
      }
    }
#pragma unroll
    for (int i = 0; i < N; ++i) product[i] *= rstd[group_0 + (channel + i) / size];
  }
  columns::fold(product, rows);
  columns::fold(sum, rows + columns::PART<N>);
  if (columns::row() == 0 && channel < p.c) {
    const size_t chunk = static_cast<size_t>(blockIdx.z) * gridDim.x + blockIdx.x;
    const size_t all = static_cast<size_t>(gridDim.z) * gridDim.x;
    vec::store(part + chunk * p.c + channel, product);
    vec::store(part + (all + chunk) * p.c + channel, sum);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                        \
  extern "C" __global__ void __launch_bounds__(256) group_norm_wgrad_2_chunks_part_##dtype(float* part,        \
          const T* dy, const T* x, const float* mean, const float* rstd, const float* w, const float* b,       \
          Params p) {                                                                                          \
    sums(part, dy, x, mean, rstd, w, b, p);                                                                    \
  }                                                                                                            \
  REGISTER_KERNEL(group_norm_wgrad_2_chunks_part_##dtype)
FOR_EACH_DTYPE(ENTRY)

extern "C" __global__ void __launch_bounds__(256)
    group_norm_wgrad_2_chunks_fold_f32(float* dw, float* db, const float* part, columns::Fold p) {
  columns::fold_two(dw, db, part, p);
}
REGISTER_KERNEL(group_norm_wgrad_2_chunks_fold_f32)
