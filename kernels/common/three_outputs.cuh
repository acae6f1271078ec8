// The backward pass of the last layer of what makes images, for the kernels that leave it and those that go on through the
// norm before it: dh[q, i] = sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], at stride 1
//
// dy: [n, h, w, o], w: [3, 3, i, o]. What a pixel meets of dy is a row of 27 at most; eight mmas multiply those of 16
// pixels by the weights of 32 channels. dh is rounded as it would be stored, and stays in registers.
// At most three outputs; inputs are a multiple of 32, at most 256. Grid: chunks of pixels, n. A block's warps are side by
// side along the channels, 32 each, and below one another where channels are few.
#pragma once
#include "eights.cuh"

namespace three_outputs {

using eights::Eight;

static constexpr int N = 8, TAPS = 9, OUTPUTS = 3;                // at most so many outputs
static constexpr int CHANNELS = 32, J = CHANNELS / eights::COLS;  // of a warp
static constexpr int STAGE = 256;                                 // pixels whose rows are in shared memory
static constexpr int MOST = 256;                                  // threads

struct Params {
  int samples, height, width, inputs, outputs, groups;  // groups: of the norm, if there is one
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

}  // namespace three_outputs
