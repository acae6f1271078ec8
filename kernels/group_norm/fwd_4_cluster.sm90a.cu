// Group normalisation of NHWC images: xhat = (x - mean) rstd, u = xhat w + b, y = u, or u sigmoid(u) when `silu`.
//
// y, x: [n, pixels, c]; mean, rstd: f32 [n, groups]; w, b: f32 [c].
// A cluster of blocks holds a run of groups of a sample in shared memory: as in fwd_3_resident x is read once and there
// is one launch, but by many blocks, in loads of 16 bytes, for images of which no block would hold a group. Each
// block has the moments of its slice, and joins those of all.
// Wants the run's channels to be whole 16 bytes, and the slices to fit. Grid: runs by blocks of a cluster, n.
#include "math.cuh"
#include "slices90.cuh"

namespace {

struct Params {
  slices::Sizes sizes;
  float eps;
};

template <int CLUSTER, class T>
ARCH_FN void group_norm(T* __restrict__ y, float* __restrict__ mean, float* __restrict__ rstd, const T* __restrict__ x,
                        const float* __restrict__ w, const float* __restrict__ b, const Params& p) {
  constexpr int N = vec::WIDTH<T>, PARTS = slices::GROUPS * slices::WARPS;
  DYN_SMEM(smem);
  SHARED_ARRAY(float, part_of_sums, PARTS);
  SHARED_ARRAY(float, part_of_squares, PARTS);
  SHARED_ARRAY(Two, statistics, slices::GROUPS);  // mean, rstd
  slices::Told& told = *reinterpret_cast<slices::Told*>(smem);
  T* const kept = reinterpret_cast<T*>(smem + sizeof told);  // (pixels, packs, N)
  const slices::Slice<CLUSTER, T> slice(p.sizes);

  slice.copy(kept, x);
  arch::cp_async_commit();
  arch::cp_async_wait<0>();
  float sums[N] = {}, mu[N], squares[N] = {};
  slice.each([&](size_t, int i) {
    float v[N];
    vec::load(v, kept + i);
#pragma unroll
    for (int k = 0; k < N; ++k) sums[k] += v[k];
  });
  const float sum = slice.fold(sums, part_of_sums);
  const float of_mean = slice.pixels > 0 ? sum / (static_cast<float>(slice.pixels) * slice.size) : 0.0f;
  if (slice.is_first_of_group()) told.of[threadIdx.x].v[0] = of_mean;
  __syncthreads();  // the means of the slice are there
#pragma unroll
  for (int k = 0; k < N; ++k) mu[k] = told.of[slice.group(k)].v[0];
  slice.each([&](size_t, int i) {
    float v[N];
    vec::load(v, kept + i);
#pragma unroll
    for (int k = 0; k < N; ++k) squares[k] += (v[k] - mu[k]) * (v[k] - mu[k]);
  });
  const float of_squares = slice.fold(squares, part_of_squares);
  if (slice.is_first_of_group()) told.of[threadIdx.x].v[1] = of_squares;
  arch::cluster_sync();  // all blocks have told their moments

  if (slice.is_first_of_group()) {
    Two all[CLUSTER];
    slice.read(all, told);
    reduce::Moments m = {};
#pragma unroll
    for (int rank = 0; rank < CLUSTER; ++rank) {
      const int pixels = max(0, min(p.sizes.slice, p.sizes.pixels - rank * p.sizes.slice));
      m = reduce::join(m, {static_cast<float>(pixels) * slice.size, all[rank].v[0], all[rank].v[1]});
    }
    const float r = 1.0f / sqrtf(m.squares / m.count + p.eps);
    statistics[threadIdx.x] = {m.mean, r};
    if (arch::cluster_rank() == 0) {
      mean[slice.group_0 + threadIdx.x] = m.mean;
      rstd[slice.group_0 + threadIdx.x] = r;
    }
  }
  __syncthreads();  // the statistics are there
  float scale[N], shift[N];
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const Two of = statistics[slice.group(k)];
    const int c = slice.channel_0 + slice.channel + k;
    scale[k] = of.v[1] * w[c];
    shift[k] = b[c] - of.v[0] * scale[k];
  }
  slice.each([&](size_t at, int i) {
    float v[N];
    vec::load(v, kept + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float u = v[k] * scale[k] + shift[k];
      v[k] = p.sizes.silu ? math::fast_silu(u) : u;
    }
    vec::store(y + at, v);
  });
  arch::cluster_sync();  // all have read what this block told
}

}  // namespace

#define ENTRY_OF(CLUSTER, T, dtype)                                                                            \
  extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(256, 2)                         \
      group_norm_fwd_4_cluster_of##CLUSTER##_##dtype(T* y, float* mean, float* rstd, const T* x, const float* w,\
          const float* b, __grid_constant__ const Params p) {                                                  \
    group_norm<CLUSTER>(y, mean, rstd, x, w, b, p);                                                            \
  }                                                                                                            \
  REGISTER_CLUSTER(group_norm_fwd_4_cluster_of##CLUSTER##_##dtype, CLUSTER)
#define ENTRY(T, dtype) ENTRY_OF(2, T, dtype) ENTRY_OF(4, T, dtype) ENTRY_OF(8, T, dtype)
FOR_EACH_DTYPE(ENTRY)
