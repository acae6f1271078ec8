// dh[q, i] = sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], at stride 1, for the last layer of what makes
// images; and through the group norm and the SiLU that made its input: dx = rstd (dxhat - m1 - xhat m2), m1 = mean(dxhat),
// m2 = mean(dxhat xhat) over the group, with dxhat = dh norm_w times the slope of SiLU at u = xhat norm_w + norm_b
//
// dh, dx, x: [n, h, w, i], dy: [n, h, w, o], w: [3, 3, i, o], mean, rstd: f32 [n, groups], norm_w, norm_b: f32 [i].
// What a pixel meets of dy is a row of 27 at most; eight mmas multiply those of 16 pixels by the weights of 32 channels.
// That costs less than to read dh: it is made for the sums of each chunk and group, and again for the result, rounded both
// times as it would be stored. In between group_norm/vjp_2_chunks folds the sums.
// At most three outputs; inputs are a multiple of 32, at most 256. Grid: chunks of pixels, n. A block's warps are side by
// side along the channels, 32 each, and below one another where channels are few.
#include "eights.cuh"
#include "math.cuh"
#include "reduce.cuh"
#include "vector.cuh"

namespace {

using eights::Eight;
using Two = Pack<float, 2>;

static constexpr int N = 8, TAPS = 9, OUTPUTS = 3;                // at most so many outputs
static constexpr int CHANNELS = 32, J = CHANNELS / eights::COLS;  // of a warp
static constexpr int STAGE = 256;                                 // pixels whose rows are in shared memory
static constexpr int MOST = 256;                                  // threads, and channels of their sums

struct Params {
  int samples, height, width, inputs, outputs, groups;
  int chunk, chunks;  // pixels of a block, blocks of a sample
};

// Where a warp stands in its block.
struct Place {
  int down, rows, channel;  // of so many warps below one another; this lane's first of eight channels

  static __device__ __forceinline__ Place of(const Params& p) {
    const int across = p.inputs / CHANNELS, warp = threadIdx.x / eights::WARP;
    const int rows = static_cast<int>(blockDim.x) / eights::WARP / across;
    return {warp / across, rows, warp % across * CHANNELS + static_cast<int>(threadIdx.x) % 4 * N};
  }

  // Where the first pixel's eight channels are in an image.
  __device__ __forceinline__ size_t start(const Params& p) const {
    const size_t sample = static_cast<size_t>(blockIdx.y) * p.height * p.width;
    return (sample + static_cast<size_t>(blockIdx.x) * p.chunk) * p.inputs + channel;
  }
};

// Column g of each eight columns of weights, such that a lane gets eight neighbours of the products: (9 outputs, inputs).
template <class T> ARCH_FN void bring(Eight (&b)[J], const T* __restrict__ w, const Place& place, const Params& p) {
  const int lane = threadIdx.x % eights::WARP, first = place.channel - lane % 4 * N, g = lane / 4;
#pragma unroll
  for (int j = 0; j < J; ++j) {
    const int channel = first + g / 2 * N + 2 * j + g % 2;
    T row[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int k = lane % 4 * N + i, tap = k / p.outputs;
      row[i] = tap < TAPS ? w[(tap * p.inputs + channel) * p.outputs + k % p.outputs] : T{};
    }
    b[j] = eights::gather(row, 1);
  }
}

// Calls body(at, dh, x) for the pixels of this block and eight channels of each: at elements from the first, where x points
// to. No x: zeros.
template <class T, class Body>
ARCH_FN void each(const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ x, const Params& p, Body body) {
  SHARED_ARRAY(Eight, stage, STAGE * eights::DEPTH / N);  // (pixels, depth)
  T* const depth = reinterpret_cast<T*>(stage);
  const int lane = threadIdx.x % eights::WARP, threads = blockDim.x;
  const Place place = Place::of(p);
  const T* const image = dy + static_cast<size_t>(blockIdx.y) * p.height * p.width * p.outputs;
  const int begin = blockIdx.x * p.chunk, end = min(begin + p.chunk, p.height * p.width);
  Eight b[J];
  bring(b, w, place, p);
  for (int i = threadIdx.x; i < STAGE * eights::DEPTH / N; i += threads) stage[i] = {};  // and beyond 27 for ever

  for (int first = begin; first < end; first += STAGE) {
    const int pixels = min(STAGE, end - first);
    const auto start = [&](int pixel) { return (first - begin + pixel) * p.inputs; };
    Eight next[2] = {};  // of x
    const auto ask = [&](int pixel) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (!x || pixel + 8 * half >= pixels) continue;
        next[half] = *reinterpret_cast<const Eight*>(x + start(pixel + 8 * half));
      }
    };
    int pixel = place.down * eights::ROWS + lane / 4;
    ask(pixel);
    __syncthreads();  // nobody needs the stage
    for (int i = threadIdx.x; i < pixels * TAPS; i += threads) {
      const int at = i / TAPS, tap = i % TAPS;
      const int row = (first + at) / p.width + 1 - tap / 3, col = (first + at) % p.width + 1 - tap % 3;
      const bool inside = row >= 0 && row < p.height && col >= 0 && col < p.width;
      const T* const from = image + static_cast<size_t>(row * p.width + col) * p.outputs;
#pragma unroll
      for (int o = 0; o < OUTPUTS; ++o) {
        if (o < p.outputs) depth[at * eights::DEPTH + tap * p.outputs + o] = inside ? from[o] : T{};
      }
    }
    __syncthreads();  // the stage is there
    for (; pixel - lane / 4 < pixels; pixel += place.rows * eights::ROWS) {
      const Eight of_x[2] = {next[0], next[1]};
      ask(pixel + place.rows * eights::ROWS);
      Eight a[1][2];
#pragma unroll
      for (int half = 0; half < 2; ++half) a[0][half] = stage[(pixel + 8 * half) * (eights::DEPTH / N) + lane % 4];
      float sum[1][J][4] = {};
      eights::multiply<T>(sum, a, b);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (pixel + 8 * half >= pixels) continue;
        float dh[N], v[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
          dh[i] = arch::to_f32(arch::from_f32<T>(sum[0][i / 2][2 * half + i % 2]));
          v[i] = i % 2 == 0 ? arch::low2<T>(of_x[half].v[i / 2]) : arch::high2<T>(of_x[half].v[i / 2]);
        }
        body(start(pixel + 8 * half), dh, v);
      }
    }
  }
}

// dh alone.
template <class T> ARCH_FN void vjp(T* __restrict__ dh, const T* __restrict__ dy, const T* __restrict__ w, const Params& p) {
  T* const to = dh + Place::of(p).start(p);
  const T* const none = nullptr;
  each(dy, w, none, p, [&](int at, const float (&value)[N], const float (&)[N]) { vec::store(to + at, value); });
}

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
  extern "C" __global__ void __launch_bounds__(MOST, 2)                                                              \
      conv2d_vjp_13_three_outputs_##dtype(T* dh, const T* dy, const T* w, Params p) {                                \
    vjp(dh, dy, w, p);                                                                                               \
  }                                                                                                                  \
  REGISTER_KERNEL(conv2d_vjp_13_three_outputs_##dtype)                                                               \
  extern "C" __global__ void __launch_bounds__(MOST, 2) conv2d_vjp_13_three_outputs_sums_##dtype(Two* part,          \
          const T* dy, const T* w, const T* x, const float* mean, const float* rstd, const float* norm_w,            \
          const float* norm_b, Params p) {                                                                           \
    sums(part, dy, w, x, mean, rstd, norm_w, norm_b, p);                                                             \
  }                                                                                                                  \
  REGISTER_KERNEL(conv2d_vjp_13_three_outputs_sums_##dtype)                                                          \
  extern "C" __global__ void __launch_bounds__(MOST, 2) conv2d_vjp_13_three_outputs_apply_##dtype(T* dx,             \
          const T* dy, const T* w, const T* x, const float* scale, const float* shift, const float* slope,           \
          const float* offset, Params p) {                                                                           \
    apply(dx, dy, w, x, scale, shift, slope, offset, p);                                                             \
  }                                                                                                                  \
  REGISTER_KERNEL(conv2d_vjp_13_three_outputs_apply_##dtype)
FOR_EACH_HALF(ENTRY)
