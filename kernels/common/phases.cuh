// The backward pass of a strided convolution, phase by phase: pixels of x whose rows and columns leave the same
// remainders by the stride meet the same taps, every stride-th one on each axis. So each phase is a product over its
// own pixels and taps (taps.cuh), and no zeros are gathered; it is a layer of the grid. x has at least `stride` rows
// and columns.
#pragma once
#include "taps.cuh"

namespace phases {

struct Params {
  int samples, x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

// One axis of a phase: pixels `phase`, phase + stride, .. of x and taps `tap`, tap + stride, .. of w. The phase's pixel
// j meets pixel j + offset - t of dy at its tap t.
struct Axis {
  int pixels, taps, tap, offset;

  __device__ __forceinline__ Axis(int length, int phase, const Params& p)
      : pixels((length - phase + p.stride - 1) / p.stride), tap((phase + p.before) % p.stride),
        offset((phase + p.before) / p.stride) {
    taps = (p.k - tap + p.stride - 1) / p.stride;
  }
};

// The pixel of x that a pixel of the phase is.
struct Place {
  int height, width;  // of the phase
  int x_height, x_width, stride, row, col;

  __device__ __forceinline__ size_t operator()(int line) const {
    const int n = line / (height * width), pixel = line % (height * width);
    const int x_row = pixel / width * stride + row, x_col = pixel % width * stride + col;
    return (static_cast<size_t>(n) * x_height + x_row) * x_width + x_col;
  }
};

// What this block's phase multiplies, and where its lines go.
struct Phase {
  taps::Taps taps;
  taps::Lines lines;
  Place place;

  static __device__ __forceinline__ Phase of_block(const Params& p) { return of(p, blockIdx.z); }

  static __device__ __forceinline__ Phase of(const Params& p, int number) {
    const int row = number / p.stride, col = number % p.stride;
    const Axis down(p.x_height, row, p), across(p.x_width, col, p);
    const int count = p.samples * down.pixels * across.pixels;
    return {{p.k, down.taps, across.taps, p.stride, down.tap, across.tap},
            {count, down.pixels, across.pixels, 1, down.offset, across.offset},
            {down.pixels, across.pixels, p.x_height, p.x_width, p.stride, row, col}};
  }

  __device__ __forceinline__ int depth(const Params& p) const { return taps.rows * taps.cols * p.outputs; }
};

// dx from dy: this block's tile of its phase.
template <class S, class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const float* __restrict__ bias,
                 const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  const auto phase = Phase::of_block(p);
  const auto chunk = chunks::Chunk::whole(phase.depth(p));
  taps::Pixels<T, S, -1> a({dy, p.y_height, p.y_width, p.outputs}, phase.taps, phase.lines, row, chunk);
  taps::Weights<T, S> b(w, phase.taps, p.inputs, p.outputs, col, chunk);
  float acc[S::I][S::J][4];
  S::template multiply<T>(acc, a, b, chunk.depth, smem);
  const tile::Output<T, T, Place> out{dx, bias, nullptr, nullptr, phase.lines.count, p.inputs, 1, phase.place};
  tile::store<S>(out, acc, row, col, smem);
}

}  // namespace phases
