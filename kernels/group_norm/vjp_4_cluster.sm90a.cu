// Backward of group normalisation: dx = residual + rstd (dxhat - m1 - xhat m2), m1 = mean(dxhat), m2 = mean(dxhat xhat)
// over the group, with dxhat = du w, and du = dy, or dy times the slope of SiLU at u = xhat w + b when `silu`.
//
// dx, dy, x, residual: [n, pixels, c]; mean, rstd: f32 [n, groups]; w, b: f32 [c].
// A cluster of blocks holds a run of groups of a sample in shared memory, of dy and of x, as in fwd_4_cluster: one launch,
// and both are read once. Each block has the sums of its slice, and adds those of all.
// Wants the run's channels to be whole 16 bytes, and the slices to fit. Grid: runs by blocks of a cluster, n.
#include "math.cuh"
#include "slices90.cuh"

namespace {

using slices::Sizes;

template <int CLUSTER, class T>
ARCH_FN void group_norm(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x,
                        const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ w,
                        const float* __restrict__ b, const T* __restrict__ residual, const Sizes& p) {
  constexpr int N = vec::WIDTH<T>, PARTS = slices::GROUPS * slices::WARPS;
  DYN_SMEM(smem);
  SHARED_ARRAY(float, part_of_sums, PARTS);
  SHARED_ARRAY(float, part_of_products, PARTS);
  SHARED_ARRAY(Two, terms, slices::GROUPS);  // dx = du scale + (x - mean) slope + offset
  slices::Told& told = *reinterpret_cast<slices::Told*>(smem);
  const slices::Slice<CLUSTER, T> slice(p);
  T* const kept_x = reinterpret_cast<T*>(smem + sizeof told);              // (pixels, packs, N)
  T* const kept_dy = kept_x + slice.pixels * slice.packs * N;              // (pixels, packs, N)

  slice.copy(kept_x, x);
  slice.copy(kept_dy, dy);
  arch::cp_async_commit();
  float mu[N], scale[N], shift[N], sums[N] = {}, products[N] = {};  // of dxhat and of dxhat xhat
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const int c = slice.channel_0 + slice.channel + k, group = slice.group_0 + slice.group(k);
    mu[k] = mean[group];
    scale[k] = w[c] * rstd[group];
    shift[k] = b[c];
  }
  // du, and x - mean
  const auto load = [&](float (&du)[N], float (&v)[N], int i) {
    vec::load(v, kept_x + i);
    vec::load(du, kept_dy + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      v[k] -= mu[k];
      if (p.silu) du[k] *= math::fast_silu_slope(v[k] * scale[k] + shift[k]);
    }
  };
  arch::cp_async_wait<0>();
  slice.each([&](size_t, int i) {
    float du[N], v[N];
    load(du, v, i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      sums[k] += du[k];
      products[k] += du[k] * v[k];
    }
  });
#pragma unroll
  for (int k = 0; k < N; ++k) {
    sums[k] *= w[slice.channel_0 + slice.channel + k];
    products[k] *= scale[k];
  }
  const float sum = slice.fold(sums, part_of_sums), product = slice.fold(products, part_of_products);
  if (slice.is_first_of_group()) told.of[threadIdx.x] = {sum, product};
  arch::cluster_sync();  // all blocks have told their sums

  if (slice.is_first_of_group()) {
    Two all[CLUSTER];
    slice.read(all, told);
    float m1 = 0.0f, m2 = 0.0f;
#pragma unroll
    for (int rank = 0; rank < CLUSTER; ++rank) {
      m1 += all[rank].v[0];
      m2 += all[rank].v[1];
    }
    const float share = rstd[slice.group_0 + threadIdx.x] / (static_cast<float>(p.pixels) * slice.size);
    terms[threadIdx.x] = {-rstd[slice.group_0 + threadIdx.x] * share * m2, -share * m1};
  }
  __syncthreads();  // the terms are there
  float slope[N], offset[N];
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const Two of = terms[slice.group(k)];
    slope[k] = of.v[0];
    offset[k] = of.v[1];
  }
  slice.each([&](size_t at, int i) {
    float du[N], v[N], more[N] = {};
    load(du, v, i);
    if (residual) vec::load(more, residual + at);
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] = du[k] * scale[k] + (v[k] * slope[k] + offset[k]) + more[k];
    vec::store(dx + at, v);
  });
  arch::cluster_sync();  // all have read what this block told
}

}  // namespace

#define ENTRY_OF(CLUSTER, T, dtype)                                                                            \
  extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(256, 2)                         \
      group_norm_vjp_4_cluster_of##CLUSTER##_##dtype(T* dx, const T* dy, const T* x, const float* mean,        \
          const float* rstd, const float* w, const float* b, const T* residual,                                \
          __grid_constant__ const Sizes p) {                                                                   \
    group_norm<CLUSTER>(dx, dy, x, mean, rstd, w, b, residual, p);                                             \
  }                                                                                                            \
  REGISTER_CLUSTER(group_norm_vjp_4_cluster_of##CLUSTER##_##dtype, CLUSTER)
#define ENTRY(T, dtype) ENTRY_OF(2, T, dtype) ENTRY_OF(4, T, dtype) ENTRY_OF(8, T, dtype)
FOR_EACH_DTYPE(ENTRY)
