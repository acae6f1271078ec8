// Group normalisation of NHWC images: xhat = (x - mean) rstd, u = xhat w + b, y = u, or u sigmoid(u) when `silu`.
//
// y, x: [n, pixels, c]; mean, rstd: f32 [n, groups]; w, b: f32 [c].
// A block takes a chunk of whole pixels, so that all loads are of 16 neighbouring bytes. Three kernels: the moments of
// each chunk and group; their join, folded into y = x scale + shift for each channel; the result. The first is left out
// where the launch that wrote x left moments of its parts.
// Wants c to be whole 16 bytes, in at most 640 packs. Grid: chunks, n; a thread for each pack of `rows` pixels.
#include "math.cuh"
#include "reduce.cuh"
#include "vector.cuh"

namespace {

using reduce::Moments;

static constexpr int AT_ONCE = 4;  // pixels that a thread has in registers

struct Params {
  int pixels, c, groups, silu;
  int rows, chunk, chunks;  // pixels side by side in a block, pixels of a block, blocks of a sample
  float eps;
};

// part: (n, groups, chunks) mean and squares of each chunk. Shared memory: a pair for each row and channel.
template <class T> ARCH_FN void moments(Two* __restrict__ part, const T* __restrict__ x, Params p) {
  constexpr int N = vec::WIDTH<T>;
  DYN_SMEM(smem);
  Two* const sums = reinterpret_cast<Two*>(smem);  // (N, rows, packs)
  const int packs = p.c / N, slots = p.rows * packs, size = p.c / p.groups;
  const int slot = threadIdx.x, row = slot / packs;
  const int first = blockIdx.x * p.chunk, pixels = min(p.chunk, p.pixels - first);
  x += (static_cast<size_t>(blockIdx.y) * p.pixels + first) * p.c + slot % packs * N;  // (pixels, N) of pitch c

  if (row < p.rows) {
    float count = 0.0f, mean[N] = {}, squares[N] = {};
    for (int pixel = row; pixel < pixels; pixel += AT_ONCE * p.rows) {
      float v[AT_ONCE][N] = {};
#pragma unroll
      for (int k = 0; k < AT_ONCE; ++k) {
        if (pixel + k * p.rows < pixels) vec::load(v[k], x + static_cast<size_t>(pixel + k * p.rows) * p.c);
      }
      // The deviations are from these pixels' own mean, so nothing cancels; then they join what came before.
      const int here = min(AT_ONCE, (pixels - pixel + p.rows - 1) / p.rows);
      const float each = 1.0f / here, share = here / (count + here), cross = count * share;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        float mu = 0.0f;
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) mu += v[k][i];
        mu *= each;
        const float delta = mu - mean[i];
        mean[i] += delta * share;
        squares[i] += delta * delta * cross;
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
          const float deviation = k < here ? v[k][i] - mu : 0.0f;
          squares[i] += deviation * deviation;
        }
      }
      count += here;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) sums[i * slots + slot] = {mean[i], squares[i]};
  }
  __syncthreads();  // sums are complete

  const int lane = threadIdx.x % reduce::WARP, warps = blockDim.x / reduce::WARP;
  for (int group = threadIdx.x / reduce::WARP; group < p.groups; group += warps) {
    Moments m = {};
    for (int i = lane; i < size * p.rows; i += reduce::WARP) {
      const int r = i / size, c = group * size + i % size;
      const Two of = sums[c % N * slots + r * packs + c / N];
      m = reduce::join(m, {static_cast<float>((pixels - r + p.rows - 1) / p.rows), of.v[0], of.v[1]});
    }
    m = reduce::warp_join(m);
    if (lane == 0) {
      const size_t at = (static_cast<size_t>(blockIdx.y) * p.groups + group) * p.chunks + blockIdx.x;
      part[at] = {m.mean, m.squares};
    }
  }
}

// A block for a sample and group, however many threads. scale, shift: (n, c). Grid: groups, n.
ARCH_FN void fold(float* __restrict__ mean, float* __restrict__ rstd, float* __restrict__ scale,
                  float* __restrict__ shift, const Two* __restrict__ part, const float* __restrict__ w,
                  const float* __restrict__ b, Params p) {
  SHARED_ARRAY(Moments, warps, reduce::MAX_WARPS);
  const int size = p.c / p.groups, threads = blockDim.x;
  const size_t group = static_cast<size_t>(blockIdx.y) * p.groups + blockIdx.x;
  Moments m = {};
  for (int i = threadIdx.x; i < p.chunks; i += threads) {
    const Two of = part[group * p.chunks + i];
    const int pixels = min(p.chunk, p.pixels - i * p.chunk);
    m = reduce::join(m, {static_cast<float>(pixels) * size, of.v[0], of.v[1]});
  }
  m = reduce::block_join(m, warps);
  const float mu = m.mean, r = 1.0f / sqrtf(m.squares / m.count + p.eps);
  if (threadIdx.x == 0) {
    mean[group] = mu;
    rstd[group] = r;
  }
  for (int i = threadIdx.x; i < size; i += threads) {
    const int c = blockIdx.x * size + i;
    const size_t at = static_cast<size_t>(blockIdx.y) * p.c + c;
    scale[at] = r * w[c];
    shift[at] = b[c] - mu * (r * w[c]);
  }
}

template <class T>
ARCH_FN void apply(T* __restrict__ y, const T* __restrict__ x, const float* __restrict__ scale,
                   const float* __restrict__ shift, Params p) {
  constexpr int N = vec::WIDTH<T>;
  const int packs = p.c / N, row = threadIdx.x / packs, c = threadIdx.x % packs * N;
  const int first = blockIdx.x * p.chunk, pixels = row < p.rows ? min(p.chunk, p.pixels - first) : 0;
  const size_t start = (static_cast<size_t>(blockIdx.y) * p.pixels + first) * p.c + c;  // (pixels, N) of pitch c
  float s[N], t[N];
  vec::load(s, scale + static_cast<size_t>(blockIdx.y) * p.c + c);
  vec::load(t, shift + static_cast<size_t>(blockIdx.y) * p.c + c);
#pragma unroll AT_ONCE
  for (int pixel = row; pixel < pixels; pixel += p.rows) {
    const size_t at = start + static_cast<size_t>(pixel) * p.c;
    float v[N];
    vec::load(v, x + at);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float u = v[i] * s[i] + t[i];
      v[i] = p.silu ? math::fast_silu(u) : u;
    }
    vec::store(y + at, v);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                         \
  extern "C" __global__ void __launch_bounds__(640, 1) group_norm_fwd_2_chunks_moments_##dtype(Two* part,       \
          const T* x, Params p) {                                                                               \
    moments(part, x, p);                                                                                        \
  }                                                                                                             \
  REGISTER_KERNEL(group_norm_fwd_2_chunks_moments_##dtype)                                                      \
  extern "C" __global__ void __launch_bounds__(512) group_norm_fwd_2_chunks_fold_##dtype(float* mean,           \
          float* rstd, float* scale, float* shift, const Two* part, const float* w, const float* b, Params p) { \
    fold(mean, rstd, scale, shift, part, w, b, p);                                                              \
  }                                                                                                             \
  REGISTER_KERNEL(group_norm_fwd_2_chunks_fold_##dtype)                                                         \
  extern "C" __global__ void __launch_bounds__(640, 1) group_norm_fwd_2_chunks_apply_##dtype(T* y, const T* x,  \
          const float* scale, const float* shift, Params p) {                                                   \
    apply(y, x, scale, shift, p);                                                                               \
  }                                                                                                             \
  REGISTER_KERNEL(group_norm_fwd_2_chunks_apply_##dtype)
FOR_EACH_DTYPE(ENTRY)
