// y[n] = m[n] + radius[n] v / ||v|| with v = x[n] + c[n] g[n] - m[n], and m[n] where v = 0: a gradient step and the
// projection back onto the sphere.
//
// y, x, m, g: [samples, size], g may be absent; a: [samples, 2], radius and c. Two launches over (chunks of a sample,
// samples): `sums` leaves the sum of squares of each chunk, in double; `apply` adds them up, in the same order in every
// block, and projects its chunk. v is computed twice rather than stored.
#include "reduce.cuh"

namespace {

struct Params {
  int size, chunk;
};

ARCH_FN float from_centre(const float* x, const float* m, const float* g, float c, size_t at) {
  const float w = g ? x[at] + c * g[at] : x[at];
  return w - m[at];
}

ARCH_FN void sums(double* __restrict__ sums, const float* __restrict__ x, const float* __restrict__ m,
                  const float* __restrict__ a, const float* __restrict__ g, Params p) {
  SHARED_ARRAY(double, part, reduce::MAX_WARPS);
  const size_t sample = blockIdx.y;
  const float c = a[2 * sample + 1];
  const int first = blockIdx.x * p.chunk, end = min(p.size - first, p.chunk) + first;
  double sum = 0.0;
  for (int i = first + threadIdx.x; i < end; i += blockDim.x) {
    const double v = from_centre(x, m, g, c, sample * p.size + i);
    sum += v * v;
  }
  sum = reduce::block_sum(sum, part);
  if (threadIdx.x == 0) sums[sample * gridDim.x + blockIdx.x] = sum;
}

ARCH_FN void apply(float* __restrict__ y, const double* __restrict__ sums, const float* __restrict__ x,
                   const float* __restrict__ m, const float* __restrict__ a, const float* __restrict__ g, Params p) {
  SHARED_ARRAY(double, part, reduce::MAX_WARPS);
  const size_t sample = blockIdx.y;
  const float radius = a[2 * sample], c = a[2 * sample + 1];
  const int first = blockIdx.x * p.chunk, end = min(p.size - first, p.chunk) + first;
  double sum = 0.0;
  for (u32 i = threadIdx.x; i < gridDim.x; i += blockDim.x) sum += sums[sample * gridDim.x + i];
  const float norm = static_cast<float>(sqrt(reduce::block_sum(sum, part)));
  const float scale = norm == 0.0f ? 0.0f : radius / norm;
  for (int i = first + threadIdx.x; i < end; i += blockDim.x) {
    const size_t at = sample * p.size + i;
    y[at] = m[at] + scale * from_centre(x, m, g, c, at);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) sphere_fwd_1_plain_sums_f32(
    double* partial, const float* x, const float* m, const float* a, const float* g, Params p) {
  sums(partial, x, m, a, g, p);
}
REGISTER_KERNEL(sphere_fwd_1_plain_sums_f32)

extern "C" __global__ void __launch_bounds__(256) sphere_fwd_1_plain_apply_f32(
    float* y, const double* partial, const float* x, const float* m, const float* a, const float* g, Params p) {
  apply(y, partial, x, m, a, g, p);
}
REGISTER_KERNEL(sphere_fwd_1_plain_apply_f32)
