// loss[n] = ||f[n] - y[n]||, unit[n] = (f[n] - y[n]) / loss[n], zero where the loss is zero.
//
// loss: [samples], unit, f, y: [samples, size]. Two launches over (chunks of a sample, samples): `sums` leaves the sum of
// squares of each chunk, in double; `apply` adds them up, in the same order in every block, and scales its chunk.
#include "reduce.cuh"

namespace {

struct Params {
  int size, chunk;
};

ARCH_FN void sums(double* __restrict__ sums, const float* __restrict__ f, const float* __restrict__ y, Params p) {
  SHARED_ARRAY(double, part, reduce::MAX_WARPS);
  const size_t sample = blockIdx.y;
  const int first = blockIdx.x * p.chunk, end = min(p.size - first, p.chunk) + first;
  double sum = 0.0;
  for (int i = first + threadIdx.x; i < end; i += blockDim.x) {
    const size_t at = sample * p.size + i;
    const double r = f[at] - y[at];
    sum += r * r;
  }
  sum = reduce::block_sum(sum, part);
  if (threadIdx.x == 0) sums[sample * gridDim.x + blockIdx.x] = sum;
}

ARCH_FN void apply(float* __restrict__ loss, float* __restrict__ unit, const double* __restrict__ sums,
                   const float* __restrict__ f, const float* __restrict__ y, Params p) {
  SHARED_ARRAY(double, part, reduce::MAX_WARPS);
  const size_t sample = blockIdx.y;
  const int first = blockIdx.x * p.chunk, end = min(p.size - first, p.chunk) + first;
  double sum = 0.0;
  for (u32 c = threadIdx.x; c < gridDim.x; c += blockDim.x) sum += sums[sample * gridDim.x + c];
  const float norm = static_cast<float>(sqrt(reduce::block_sum(sum, part)));
  const float scale = norm == 0.0f ? 0.0f : 1.0f / norm;
  for (int i = first + threadIdx.x; i < end; i += blockDim.x) {
    const size_t at = sample * p.size + i;
    unit[at] = (f[at] - y[at]) * scale;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) loss[sample] = norm;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    residual_fwd_1_plain_sums_f32(double* partial, const float* f, const float* y, Params p) {
  sums(partial, f, y, p);
}
REGISTER_KERNEL(residual_fwd_1_plain_sums_f32)

extern "C" __global__ void __launch_bounds__(256) residual_fwd_1_plain_apply_f32(
    float* loss, float* unit, const double* partial, const float* f, const float* y, Params p) {
  apply(loss, unit, partial, f, y, p);
}
REGISTER_KERNEL(residual_fwd_1_plain_apply_f32)
