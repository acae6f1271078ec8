// Backward of group normalisation: dx = residual + rstd (dxhat - mean(dxhat) - xhat mean(dxhat xhat)), the means over
// the group, with dxhat = du w, and du = dy, or dy times the slope of SiLU at u = xhat w + b when `silu`.
//
// dx, dy, x, residual: [n, pixels, c]; mean, rstd: f32 [n, groups]; w, b: f32 [c].
// One block a sample and group, whose dy and x stay in shared memory between the two sums and the result, as in
// fwd_3_resident. Wants N to divide the channels of a group, and the group to fit. Grid: groups, n.
#include "math.cuh"
#include "reduce.cuh"

namespace {

struct Params {
  int pixels, c, groups, silu;
};

template <int N, class T>
ARCH_FN void group_norm(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x,
                        const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ w,
                        const float* __restrict__ b, const T* __restrict__ residual, Params p) {
  using Some = Pack<T, N>;
  DYN_SMEM(smem);
  SHARED_ARRAY(float, part, reduce::MAX_WARPS);
  const int size = p.c / p.groups, packs = size / N, count = p.pixels * packs;
  Some* const kept_x = reinterpret_cast<Some*>(smem);                                // (pixels, size / N)
  Some* const kept_dy = kept_x + count;                                              // (pixels, size / N)
  const int channel = blockIdx.x * size;                                             // this group's first
  const size_t first = static_cast<size_t>(blockIdx.y) * p.pixels * p.c + channel;  // (pixels, size) of pitch c
  const size_t group = static_cast<size_t>(blockIdx.y) * p.groups + blockIdx.x;
  const float mu = mean[group], r = rstd[group];

  const auto at = [&](int i) { return first + static_cast<size_t>(i / packs) * p.c + i % packs * N; };
  const auto dxhat = [&](float dy, float xhat, int c) {
    return w[c] * (p.silu ? dy * math::fast_silu_slope(xhat * w[c] + b[c]) : dy);
  };

  float sum = 0.0f, product = 0.0f;
#pragma unroll 2
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const Some v = *reinterpret_cast<const Some*>(x + at(i)), d = *reinterpret_cast<const Some*>(dy + at(i));
    kept_x[i] = v;
    kept_dy[i] = d;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float xhat = (arch::to_f32(v.v[k]) - mu) * r;
      const float cotangent = dxhat(arch::to_f32(d.v[k]), xhat, channel + i % packs * N + k);
      sum += cotangent;
      product += cotangent * xhat;
    }
  }
  const float elements = static_cast<float>(p.pixels) * size;
  const float m1 = reduce::block_sum(sum, part) / elements;
  const float m2 = reduce::block_sum(product, part) / elements;

  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    Some v = kept_x[i];
    const Some d = kept_dy[i], beside = residual ? *reinterpret_cast<const Some*>(residual + at(i)) : Some{};
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float xhat = (arch::to_f32(v.v[k]) - mu) * r;
      const float cotangent = dxhat(arch::to_f32(d.v[k]), xhat, channel + i % packs * N + k);
      v.v[k] = arch::from_f32<T>(r * (cotangent - m1 - xhat * m2) + arch::to_f32(beside.v[k]));
    }
    *reinterpret_cast<Some*>(dx + at(i)) = v;
  }
}

}  // namespace

#define ENTRY_BY(N, T, dtype)                                                                      \
  extern "C" __global__ void __launch_bounds__(512, 1)                                             \
      group_norm_vjp_3_resident_by##N##_##dtype(T* dx, const T* dy, const T* x, const float* mean, \
          const float* rstd, const float* w, const float* b, const T* residual, Params p) {        \
    group_norm<N>(dx, dy, x, mean, rstd, w, b, residual, p);                                       \
  }                                                                                                \
  REGISTER_KERNEL(group_norm_vjp_3_resident_by##N##_##dtype)
#define ENTRY(T, dtype) ENTRY_BY(2, T, dtype) ENTRY_BY(4, T, dtype) ENTRY_BY(8, T, dtype)
FOR_EACH_DTYPE(ENTRY)
