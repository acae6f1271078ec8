// Backward of group normalisation: dx = residual + rstd (dxhat - mean(dxhat) - xhat mean(dxhat xhat)), the means over
// the group, with dxhat = du w, and du = dy, or dy times the slope of SiLU at u = xhat w + b when `silu`.
//
// dx, dy, x, residual: [n, pixels, c]; mean, rstd: f32 [n, groups]; w, b: f32 [c].
// One block a sample and group, which looks at dy and x twice: the two sums, the result. Any sizes. Grid: groups, n.
#include "math.cuh"
#include "reduce.cuh"

namespace {

struct Params {
  int pixels, c, groups, silu;
};

template <class T>
ARCH_FN void group_norm(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x,
                        const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ w,
                        const float* __restrict__ b, const T* __restrict__ residual, Params p) {
  SHARED_ARRAY(float, part, reduce::MAX_WARPS);
  const int size = p.c / p.groups, count = p.pixels * size;
  const int channel = blockIdx.x * size;                                               // this group's first
  const size_t first = static_cast<size_t>(blockIdx.y) * p.pixels * p.c + channel;    // (pixels, size) of pitch c
  const size_t group = static_cast<size_t>(blockIdx.y) * p.groups + blockIdx.x;
  const float mu = mean[group], r = rstd[group];

  const auto at = [&](int i) { return first + static_cast<size_t>(i / size) * p.c + i % size; };
  const auto xhat = [&](int i) { return (arch::to_f32(x[at(i)]) - mu) * r; };
  const auto dxhat = [&](int i) {
    const int c = channel + i % size;
    const float du = arch::to_f32(dy[at(i)]);
    return w[c] * (p.silu ? du * math::silu_slope(xhat(i) * w[c] + b[c]) : du);
  };

  float sum = 0.0f, product = 0.0f;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    sum += dxhat(i);
    product += dxhat(i) * xhat(i);
  }
  const float m1 = reduce::block_sum(sum, part) / count;
  const float m2 = reduce::block_sum(product, part) / count;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const float more = residual ? arch::to_f32(residual[at(i)]) : 0.0f;
    dx[at(i)] = arch::from_f32<T>(r * (dxhat(i) - m1 - xhat(i) * m2) + more);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                    \
  extern "C" __global__ void __launch_bounds__(256)                                                        \
      group_norm_vjp_1_plain_##dtype(T* dx, const T* dy, const T* x, const float* mean, const float* rstd, \
          const float* w, const float* b, const T* residual, Params p) {                                   \
    group_norm(dx, dy, x, mean, rstd, w, b, residual, p);                                                  \
  }                                                                                                        \
  REGISTER_KERNEL(group_norm_vjp_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
