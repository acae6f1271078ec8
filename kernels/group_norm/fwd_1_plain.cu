// Group normalisation of NHWC images: xhat = (x - mean) rstd, u = xhat w + b, y = u, or u sigmoid(u) when `silu`.
//
// y, x: [n, pixels, c]; mean, rstd: f32 [n, groups]; w, b: f32 [c].
// One block a sample and group, which looks at x three times: the mean, the squared deviations from it, the result.
// Any sizes. Grid: groups, n.
#include "math.cuh"
#include "reduce.cuh"

namespace {

struct Params {
  int pixels, c, groups, silu;
  float eps;
};

template <class T>
ARCH_FN void group_norm(T* __restrict__ y, float* __restrict__ mean, float* __restrict__ rstd, const T* __restrict__ x,
                        const float* __restrict__ w, const float* __restrict__ b, Params p) {
  SHARED_ARRAY(float, part, reduce::MAX_WARPS);
  const int size = p.c / p.groups, count = p.pixels * size;
  const int channel = blockIdx.x * size;                                               // this group's first
  const size_t first = static_cast<size_t>(blockIdx.y) * p.pixels * p.c + channel;    // (pixels, size) of pitch c
  const auto at = [&](int i) { return first + static_cast<size_t>(i / size) * p.c + i % size; };

  float sum = 0.0f;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += arch::to_f32(x[at(i)]);
  const float mu = reduce::block_sum(sum, part) / count;

  float squares = 0.0f;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const float deviation = arch::to_f32(x[at(i)]) - mu;
    squares += deviation * deviation;
  }
  const float r = 1.0f / sqrtf(reduce::block_sum(squares, part) / count + p.eps);

  if (threadIdx.x == 0) {
    const size_t group = static_cast<size_t>(blockIdx.y) * p.groups + blockIdx.x;
    mean[group] = mu;
    rstd[group] = r;
  }
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const int c = channel + i % size;
    const float u = (arch::to_f32(x[at(i)]) - mu) * r * w[c] + b[c];
    y[at(i)] = arch::from_f32<T>(p.silu ? math::silu(u) : u);
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                          \
  extern "C" __global__ void __launch_bounds__(256)                                                              \
      group_norm_fwd_1_plain_##dtype(T* y, float* mean, float* rstd, const T* x, const float* w, const float* b, \
          Params p) {                                                                                            \
    group_norm(y, mean, rstd, x, w, b, p);                                                                       \
  }                                                                                                              \
  REGISTER_KERNEL(group_norm_fwd_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
