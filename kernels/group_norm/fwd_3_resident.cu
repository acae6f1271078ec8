// Group normalisation of NHWC images: xhat = (x - mean) rstd, u = xhat w + b, y = u, or u sigmoid(u) when `silu`.
//
// y, x: [n, pixels, c]; mean, rstd: f32 [n, groups]; w, b: f32 [c].
// One block a sample and group, which stays in shared memory between the mean, the squared deviations from it and the
// result: one launch and one look at x, for small images. Every thread keeps what it loaded, in packs of N elements.
// Wants N to divide the channels of a group, and the group to fit. Grid: groups, n.
#include "math.cuh"
#include "reduce.cuh"

namespace {

struct Params {
  int pixels, c, groups, silu;
  float eps;
};

template <int N, class T>
ARCH_FN void group_norm(T* __restrict__ y, float* __restrict__ mean, float* __restrict__ rstd, const T* __restrict__ x,
                        const float* __restrict__ w, const float* __restrict__ b, Params p) {
  using Some = Pack<T, N>;
  DYN_SMEM(smem);
  SHARED_ARRAY(float, part, reduce::MAX_WARPS);
  Some* const kept = reinterpret_cast<Some*>(smem);  // (pixels, size / N)
  const int size = p.c / p.groups, packs = size / N, count = p.pixels * packs;
  const int channel = blockIdx.x * size;                                             // this group's first
  const size_t first = static_cast<size_t>(blockIdx.y) * p.pixels * p.c + channel;  // (pixels, size) of pitch c
  const auto at = [&](int i) { return first + static_cast<size_t>(i / packs) * p.c + i % packs * N; };

  float sum = 0.0f;
#pragma unroll 4
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const Some v = *reinterpret_cast<const Some*>(x + at(i));
    kept[i] = v;
#pragma unroll
    for (int k = 0; k < N; ++k) sum += arch::to_f32(v.v[k]);
  }
  const float elements = static_cast<float>(p.pixels) * size;
  const float mu = reduce::block_sum(sum, part) / elements;

  float squares = 0.0f;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const Some v = kept[i];
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float deviation = arch::to_f32(v.v[k]) - mu;
      squares += deviation * deviation;
    }
  }
  const float r = 1.0f / sqrtf(reduce::block_sum(squares, part) / elements + p.eps);

  if (threadIdx.x == 0) {
    const size_t group = static_cast<size_t>(blockIdx.y) * p.groups + blockIdx.x;
    mean[group] = mu;
    rstd[group] = r;
  }
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    Some v = kept[i];
    const int c = channel + i % packs * N;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float u = (arch::to_f32(v.v[k]) - mu) * r * w[c + k] + b[c + k];
      v.v[k] = arch::from_f32<T>(p.silu ? math::fast_silu(u) : u);
    }
    *reinterpret_cast<Some*>(y + at(i)) = v;
  }
}

}  // namespace

#define ENTRY_BY(N, T, dtype)                                                                               \
  extern "C" __global__ void __launch_bounds__(512)                                                         \
      group_norm_fwd_3_resident_by##N##_##dtype(T* y, float* mean, float* rstd, const T* x, const float* w, \
          const float* b, Params p) {                                                                       \
    group_norm<N>(y, mean, rstd, x, w, b, p);                                                               \
  }                                                                                                         \
  REGISTER_KERNEL(group_norm_fwd_3_resident_by##N##_##dtype)
#define ENTRY(T, dtype) ENTRY_BY(2, T, dtype) ENTRY_BY(4, T, dtype) ENTRY_BY(8, T, dtype)
FOR_EACH_DTYPE(ENTRY)
