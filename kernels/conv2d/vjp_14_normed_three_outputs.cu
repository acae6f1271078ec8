// dx = rstd (dxhat - m1 - xhat m2), m1 = mean(dxhat), m2 = mean(dxhat xhat) over the group, with dxhat = dh norm_w times the
// slope of SiLU at u = xhat norm_w + norm_b, and dh[q, i] = sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o]:
// the last layer of what makes images, and the group norm and the SiLU that made its input
//
// dx, x: [n, h, w, i], dy: [n, h, w, o], w: [3, 3, i, o], mean, rstd: f32 [n, groups], norm_w, norm_b: f32 [i].
// To make dh, by three_outputs.cuh, costs less than to read it: it is made for the `sums` of each chunk and group, and
// again to `apply` what group_norm/vjp_2_chunks folds them to in between. Sizes and grid are those of that header.
#include "math.cuh"
#include "reduce.cuh"
#include "three_outputs.cuh"
#include "vector.cuh"

namespace {

using three_outputs::each;
using three_outputs::MOST;
using three_outputs::N;
using three_outputs::Params;
using three_outputs::Place;

// part: (n, groups, chunks) sums of dxhat and dxhat xhat.
template <class T>
ARCH_FN void sums(Two* __restrict__ part, const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ x,
                  const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ norm_w,
                  const float* __restrict__ norm_b, const Params& p) {
  SHARED_ARRAY(Two, all, MOST);  // (rows, inputs)
  const int size = p.inputs / p.groups, lane = threadIdx.x % eights::WARP;
  const size_t group_0 = static_cast<size_t>(blockIdx.y) * p.groups;
  const Place place = Place::of(p);
  float mu[N], scale[N], shift[N], sum[N] = {}, product[N] = {};  // of du and of du (x - mean)
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int c = place.channel + i;
    mu[i] = mean[group_0 + c / size];
    scale[i] = norm_w[c] * rstd[group_0 + c / size];
    shift[i] = norm_b[c];
  }
  each(dy, w, x + place.start(p), p, [&](int, const float (&dh)[N], const float (&v)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float deviation = v[i] - mu[i], du = dh[i] * math::fast_silu_slope(deviation * scale[i] + shift[i]);
      sum[i] += du;
      product[i] += du * deviation;
    }
  });
#pragma unroll
  for (int i = 0; i < N; ++i) {
    sum[i] *= norm_w[place.channel + i];
    product[i] *= scale[i];
#pragma unroll
    for (int offset = 4; offset < eights::WARP; offset *= 2) {
      sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], offset);
      product[i] += __shfl_xor_sync(0xffffffffu, product[i], offset);
    }
    if (lane < 4) all[place.down * p.inputs + place.channel + i] = {sum[i], product[i]};
  }
  __syncthreads();  // all are there

  const int warps = blockDim.x / eights::WARP;
  for (int group = threadIdx.x / eights::WARP; group < p.groups; group += warps) {
    float of_sum = 0.0f, of_product = 0.0f;
    for (int i = lane; i < size * place.rows; i += eights::WARP) {
      const Two of = all[i / size * p.inputs + group * size + i % size];
      of_sum += of.v[0];
      of_product += of.v[1];
    }
    of_sum = reduce::warp_sum(of_sum);
    of_product = reduce::warp_sum(of_product);
    if (lane == 0) part[(group_0 + group) * p.chunks + blockIdx.x] = {of_sum, of_product};
  }
}

// u = x scale + shift and dx = du scale + x slope + offset, by the sample and channel.
template <class T>
ARCH_FN void apply(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ x,
                   const float* __restrict__ scale, const float* __restrict__ shift, const float* __restrict__ slope,
                   const float* __restrict__ offset, const Params& p) {
  const Place place = Place::of(p);
  const size_t channel = static_cast<size_t>(blockIdx.y) * p.inputs + place.channel;
  T* const to = dx + place.start(p);
  float a[N], s[N], q[N], o[N];
  vec::load(a, scale + channel);
  vec::load(s, shift + channel);
  vec::load(q, slope + channel);
  vec::load(o, offset + channel);
  each(dy, w, x + place.start(p), p, [&](int at, const float (&dh)[N], const float (&v)[N]) {
    float result[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float du = dh[i] * math::fast_silu_slope(v[i] * a[i] + s[i]);
      result[i] = du * a[i] + (v[i] * q[i] + o[i]);
    }
    vec::store(to + at, result);
  });
}

}  // namespace

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(MOST, 2) conv2d_vjp_14_normed_three_outputs_sums_##dtype(Two* part,   \
          const T* dy, const T* w, const T* x, const float* mean, const float* rstd, const float* norm_w,            \
          const float* norm_b, Params p) {                                                                           \
    sums(part, dy, w, x, mean, rstd, norm_w, norm_b, p);                                                             \
  }                                                                                                                  \
  REGISTER_KERNEL(conv2d_vjp_14_normed_three_outputs_sums_##dtype)                                                   \
  extern "C" __global__ void __launch_bounds__(MOST, 2) conv2d_vjp_14_normed_three_outputs_apply_##dtype(T* dx,      \
          const T* dy, const T* w, const T* x, const float* scale, const float* shift, const float* slope,           \
          const float* offset, Params p) {                                                                           \
    apply(dx, dy, w, x, scale, shift, slope, offset, p);                                                             \
  }                                                                                                                  \
  REGISTER_KERNEL(conv2d_vjp_14_normed_three_outputs_apply_##dtype)
FOR_EACH_HALF(ENTRY)
