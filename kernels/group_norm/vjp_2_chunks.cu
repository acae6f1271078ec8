// Backward of group normalisation: dx = residual + rstd (dxhat - m1 - xhat m2), m1 = mean(dxhat), m2 = mean(dxhat xhat)
// over the group, with dxhat = du w, and du = dy, or dy times the slope of SiLU at u = xhat w + b when `silu`.
//
// dx, dy, x, residual: [n, pixels, c]; mean, rstd: f32 [n, groups]; w, b: f32 [c].
// A block takes a chunk of whole pixels, as in fwd_2_chunks. Three kernels: the two sums of each chunk and group; their
// sum, folded into u = x scale + shift and dx = du scale + x slope + offset + residual for each channel; the result. The
// first is left out where the launch that wrote dy left the sums of its parts.
// Wants c to be whole 16 bytes, in at most 640 packs. Grid: chunks, n; a thread for each pack of `rows` pixels.
#include "math.cuh"
#include "reduce.cuh"
#include "vector.cuh"

namespace {

struct Params {
  int pixels, c, groups, silu;
  int rows, chunk, chunks;  // pixels side by side in a block, pixels of a block, blocks of a sample
};

// part: (n, groups, chunks) sums of dxhat and dxhat xhat. Shared memory: a pair for each row and channel.
template <class T>
ARCH_FN void sums(Two* __restrict__ part, const T* __restrict__ dy, const T* __restrict__ x,
                  const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ w,
                  const float* __restrict__ b, Params p) {
  constexpr int N = vec::WIDTH<T>;
  DYN_SMEM(smem);
  Two* const all = reinterpret_cast<Two*>(smem);  // (N, rows, packs)
  const int packs = p.c / N, slots = p.rows * packs, size = p.c / p.groups;
  const int slot = threadIdx.x, row = slot / packs, channel = slot % packs * N;
  const int first = blockIdx.x * p.chunk, pixels = min(p.chunk, p.pixels - first);
  const size_t start = (static_cast<size_t>(blockIdx.y) * p.pixels + first) * p.c + channel;  // (pixels, N) of pitch c
  const size_t group_0 = static_cast<size_t>(blockIdx.y) * p.groups;

  if (row < p.rows) {
    float mu[N], scale[N], shift[N], sum[N] = {}, product[N] = {};  // of du and of du (x - mean)
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int c = channel + i;
      mu[i] = mean[group_0 + c / size];
      scale[i] = w[c] * rstd[group_0 + c / size];
      shift[i] = b[c];
    }
#pragma unroll 2
    for (int pixel = row; pixel < pixels; pixel += p.rows) {
      float v[N], du[N];
      vec::load(v, x + start + static_cast<size_t>(pixel) * p.c);
      vec::load(du, dy + start + static_cast<size_t>(pixel) * p.c);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        v[i] -= mu[i];
        if (p.silu) du[i] *= math::fast_silu_slope(v[i] * scale[i] + shift[i]);
        sum[i] += du[i];
        product[i] += du[i] * v[i];
      }
    }
#pragma unroll
    for (int i = 0; i < N; ++i) all[i * slots + slot] = {sum[i] * w[channel + i], product[i] * scale[i]};
  }
  __syncthreads();  // all are there

  const int lane = threadIdx.x % reduce::WARP, warps = blockDim.x / reduce::WARP;
  for (int group = threadIdx.x / reduce::WARP; group < p.groups; group += warps) {
    float sum = 0.0f, product = 0.0f;
    for (int i = lane; i < size * p.rows; i += reduce::WARP) {
      const int c = group * size + i % size;
      const Two of = all[c % N * slots + i / size * packs + c / N];
      sum += of.v[0];
      product += of.v[1];
    }
    sum = reduce::warp_sum(sum);
    product = reduce::warp_sum(product);
    if (lane == 0) part[(group_0 + group) * p.chunks + blockIdx.x] = {sum, product};
  }
}

// A block for a sample and group, however many threads. scale, shift, slope, offset: (n, c). Grid: groups, n.
ARCH_FN void fold(float* __restrict__ scale, float* __restrict__ shift, float* __restrict__ slope,
                  float* __restrict__ offset, const Two* __restrict__ part, const float* __restrict__ mean,
                  const float* __restrict__ rstd, const float* __restrict__ w, const float* __restrict__ b, Params p) {
  SHARED_ARRAY(float, of_warps, reduce::MAX_WARPS);
  const int size = p.c / p.groups, threads = blockDim.x;
  const size_t group = static_cast<size_t>(blockIdx.y) * p.groups + blockIdx.x;
  float sum = 0.0f, product = 0.0f;
  for (int i = threadIdx.x; i < p.chunks; i += threads) {
    const Two of = part[group * p.chunks + i];
    sum += of.v[0];
    product += of.v[1];
  }
  const float count = static_cast<float>(p.pixels) * size, mu = mean[group], r = rstd[group];
  const float m1 = reduce::block_sum(sum, of_warps) / count, m2 = reduce::block_sum(product, of_warps) / count;
  for (int i = threadIdx.x; i < size; i += threads) {
    const int c = blockIdx.x * size + i;
    const size_t at = static_cast<size_t>(blockIdx.y) * p.c + c;
    scale[at] = r * w[c];
    shift[at] = b[c] - mu * (r * w[c]);
    slope[at] = -r * r * m2;
    offset[at] = r * (mu * r * m2 - m1);
  }
}

template <class T>
ARCH_FN void apply(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x,
                   const float* __restrict__ scale, const float* __restrict__ shift, const float* __restrict__ slope,
                   const float* __restrict__ offset, const T* __restrict__ residual, Params p) {
  constexpr int N = vec::WIDTH<T>;
  const int packs = p.c / N, row = threadIdx.x / packs, c = threadIdx.x % packs * N;
  const int first = blockIdx.x * p.chunk, pixels = row < p.rows ? min(p.chunk, p.pixels - first) : 0;
  const size_t start = (static_cast<size_t>(blockIdx.y) * p.pixels + first) * p.c + c;  // (pixels, N) of pitch c
  const size_t channel = static_cast<size_t>(blockIdx.y) * p.c + c;
  float a[N], s[N], q[N], o[N];
  vec::load(a, scale + channel);
  vec::load(s, shift + channel);
  vec::load(q, slope + channel);
  vec::load(o, offset + channel);
#pragma unroll 2
  for (int pixel = row; pixel < pixels; pixel += p.rows) {
    const size_t at = start + static_cast<size_t>(pixel) * p.c;
    float v[N], du[N], more[N] = {};
    vec::load(v, x + at);
    vec::load(du, dy + at);
    if (residual) vec::load(more, residual + at);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (p.silu) du[i] *= math::fast_silu_slope(v[i] * a[i] + s[i]);
      v[i] = du[i] * a[i] + (v[i] * q[i] + o[i]) + more[i];
    }
    vec::store(dx + at, v);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(640, 1) group_norm_vjp_2_chunks_sums_##dtype(Two* part,             \
          const T* dy, const T* x, const float* mean, const float* rstd, const float* w, const float* b,           \
          Params p) {                                                                                              \
    sums(part, dy, x, mean, rstd, w, b, p);                                                                        \
  }                                                                                                                \
  REGISTER_KERNEL(group_norm_vjp_2_chunks_sums_##dtype)                                                            \
  extern "C" __global__ void __launch_bounds__(512) group_norm_vjp_2_chunks_fold_##dtype(float* scale,             \
          float* shift, float* slope, float* offset, const Two* part, const float* mean, const float* rstd,        \
          const float* w, const float* b, Params p) {                                                              \
    fold(scale, shift, slope, offset, part, mean, rstd, w, b, p);                                                  \
  }                                                                                                                \
  REGISTER_KERNEL(group_norm_vjp_2_chunks_fold_##dtype)                                                            \
  extern "C" __global__ void __launch_bounds__(640, 1) group_norm_vjp_2_chunks_apply_##dtype(T* dx, const T* dy,   \
          const T* x, const float* scale, const float* shift, const float* slope, const float* offset,             \
          const T* residual, Params p) {                                                                           \
    apply(dx, dy, x, scale, shift, slope, offset, residual, p);                                                    \
  }                                                                                                                \
  REGISTER_KERNEL(group_norm_vjp_2_chunks_apply_##dtype)
FOR_EACH_DTYPE(ENTRY)
