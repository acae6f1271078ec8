// dx[q, i] = bias[i] + sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], on tensor cores, phase by phase
//
// dx: [n, h, w, i], dy: [n, ho, wo, o], w: [k, k, i, o], bias: [i]. Pixels of x whose rows and columns leave the same
// remainders by the stride are a phase: they meet the same taps, every stride-th one on each axis. So each phase is a
// product as in vjp_2_tensor_cores.cu over its own pixels and taps, and no zeros are gathered; it is a layer of the
// grid. Any k and padding, h and w of at least the stride; i and o are multiples of 8. The parts are tile sizes.
#include "taps.cuh"

namespace {

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

template <class S, class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const float* __restrict__ bias,
                 const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  const int phase_row = blockIdx.z / p.stride, phase_col = blockIdx.z % p.stride;
  const Axis down(p.x_height, phase_row, p), across(p.x_width, phase_col, p);
  const int rows = p.samples * down.pixels * across.pixels;
  const taps::Taps taps{p.k, down.taps, across.taps, p.stride, down.tap, across.tap};
  taps::Pixels<T, S::ROWS, S::THREADS, -1> a({dy, p.y_height, p.y_width, p.outputs}, taps,
                                             {rows, down.pixels, across.pixels, 1, down.offset, across.offset}, row);
  taps::Weights<T, S::COLS, S::THREADS> b(w, taps, p.inputs, p.outputs, col);
  float acc[S::I][S::J][4];
  tile::multiply<T, S>(acc, a, b, down.taps * across.taps * p.outputs, smem);
  const Place place{down.pixels, across.pixels, p.x_height, p.x_width, p.stride, phase_row, phase_col};
  tile::store<S>(tile::Output<T, T, Place>{dx, bias, nullptr, nullptr, rows, p.inputs, 1, place}, acc, row, col, smem);
}

}  // namespace

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                   \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)  \
      name(T* dx, const T* dy, const T* w, const float* bias, Params p) {                 \
    vjp<tile::Shape<SIZE, SIZE>>(dx, dy, w, bias, p);                                     \
  }                                                                                       \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                              \
  ENTRY_OF(conv2d_vjp_4_phases_128_##dtype, T, 128, 2) \
  ENTRY_OF(conv2d_vjp_4_phases_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
