// dw[tap, i, o] = sum over samples and pixels p of x[source(p, tap), i] dy[p, o], in small tiles
//
// dw: [chunks, k, k, i, o] in float, x: [n, h, w, i], dy: [n, ho, wo, o]. A block computes 32 lines [k k i] x 32 outputs
// over a chunk of the pixels, 32 at a time; sum/parts.cu adds the chunks. For the few channels of a network's ends,
// and for float. Any sizes.
#include "chunks.cuh"

namespace {

static constexpr int TILE = 32, THREADS = 128, LINES = 2, OUTPUTS = 4;  // sums of a thread: LINES x OUTPUTS
static_assert(TILE * TILE == THREADS * LINES * OUTPUTS, "the threads cover the tile");

struct Params {
  int rows;  // pixels of dy, of all samples
  int x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before, each;  // each: pixels of a chunk
};

// A pixel of dy: the first of its sample in x, and where its tap (0, 0) is.
struct Pixel {
  int sample, row, col, real;
};

template <class T>
ARCH_FN void wgrad(float* __restrict__ dw, const T* __restrict__ x, const T* __restrict__ dy, const Params& p) {
  SHARED_ARRAY(Pixel, pixels, TILE);
  SHARED_ARRAY(float, a, TILE * TILE);  // (pixel, line)
  SHARED_ARRAY(float, b, TILE * TILE);  // (pixel, output)
  const auto chunk = chunks::Chunk::of_block(p.rows, p.each);
  const int lines = p.k * p.k * p.inputs, first_line = blockIdx.x * TILE, first_output = blockIdx.y * TILE;
  // What this thread copies of each pixel: one line, one output.
  const int in_tile = threadIdx.x % TILE, line = first_line + in_tile, output = first_output + in_tile;
  const int tap = line / p.inputs, i = line % p.inputs, tap_row = tap / p.k, tap_col = tap % p.k;
  // What it sums.
  const int at_line = threadIdx.x / (TILE / OUTPUTS) * LINES, at_output = threadIdx.x % (TILE / OUTPUTS) * OUTPUTS;

  float sum[LINES][OUTPUTS] = {};
  for (int start = chunk.first; start < chunk.first + chunk.depth; start += TILE) {
    if (threadIdx.x < TILE) {
      const int pixel = start + threadIdx.x, area = p.y_height * p.y_width, in_sample = pixel % area;
      pixels[threadIdx.x] = {pixel / area, in_sample / p.y_width * p.stride - p.before,
                             in_sample % p.y_width * p.stride - p.before, pixel < chunk.first + chunk.depth};
    }
    __syncthreads();  // the pixels are there, and all threads are done with the last ones' values
    for (int j = threadIdx.x / TILE; j < TILE; j += THREADS / TILE) {
      const Pixel pixel = pixels[j];
      const int row = pixel.row + tap_row, col = pixel.col + tap_col;
      const bool meets = pixel.real && line < lines && row >= 0 && row < p.x_height && col >= 0 && col < p.x_width;
      const size_t source = (static_cast<size_t>(pixel.sample) * p.x_height + row) * p.x_width + col;
      a[j * TILE + in_tile] = meets ? arch::to_f32(x[source * p.inputs + i]) : 0.0f;
      const bool real = pixel.real && output < p.outputs;
      b[j * TILE + in_tile] = real ? arch::to_f32(dy[static_cast<size_t>(start + j) * p.outputs + output]) : 0.0f;
    }
    __syncthreads();  // the values are there, and all threads are done with the pixels
#pragma unroll 8
    for (int j = 0; j < TILE; ++j) {
      const auto left = *reinterpret_cast<const Pack<float, LINES>*>(a + j * TILE + at_line);
      const auto right = *reinterpret_cast<const Pack<float, OUTPUTS>*>(b + j * TILE + at_output);
#pragma unroll
      for (int l = 0; l < LINES; ++l)
#pragma unroll
        for (int o = 0; o < OUTPUTS; ++o) sum[l][o] += left.v[l] * right.v[o];
    }
  }

  float* const to = chunks::sums(dw, static_cast<size_t>(lines) * p.outputs);
#pragma unroll
  for (int l = 0; l < LINES; ++l) {
#pragma unroll
    for (int o = 0; o < OUTPUTS; ++o) {
      const int to_line = first_line + at_line + l, to_output = first_output + at_output + o;
      if (to_line < lines && to_output < p.outputs) to[static_cast<size_t>(to_line) * p.outputs + to_output] = sum[l][o];
    }
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                            \
      conv2d_wgrad_3_chunks_##dtype(float* dw, const T* x, const T* dy, Params p) {                                \
    wgrad(dw, x, dy, p);                                                                                           \
  }                                                                                                                \
  REGISTER_KERNEL(conv2d_wgrad_3_chunks_##dtype)
FOR_EACH_DTYPE(ENTRY)
