// y[r, c, o, i] = sum over a, b in {0, 1} of x[o, i, 2 - r + a, 2 - c + b]: the 3x3 weights that follow a doubling by
// nearest neighbour, folded into those of one transposed convolution of stride 2
//
// y: [4, 4, outputs, inputs] of storage type T, x: [outputs, inputs, 3, 3] of the file's type, zero outside of 3 x 3. A
// pixel meets four of y's taps, those of its phase: r and c both even, or either odd. One thread a phase and pair of
// channels: it sums in float and rounds the four from the sum of most terms to that of fewest, each with what rounding
// took from those before. It runs once a weight. Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int outputs, inputs;
};

// The taps of a phase on one axis: first the one that is a sum of two.
ARCH_FN int tap_of(int phase, int number) { return phase == 0 ? 2 - 2 * number : 1 + 2 * number; }

template <class T, class File>
ARCH_FN void fold(T* __restrict__ y, const File* __restrict__ x, Params p) {
  const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t matrix = static_cast<size_t>(p.outputs) * p.inputs;
  if (at >= 4 * matrix) return;
  const int phase = static_cast<int>(at / matrix);
  const File* const kernel = x + at % matrix * 9;  // (3, 3)
  T* const to = y + at % matrix;                   // (4, 4) every matrix-th
  float carried = 0.0f;
  for (int tap = 0; tap < 4; ++tap) {
    const int r = tap_of(phase / 2, tap / 2), c = tap_of(phase % 2, tap % 2);
    float sum = carried;
    for (int row = max(2 - r, 0); row <= min(3 - r, 2); ++row)
      for (int col = max(2 - c, 0); col <= min(3 - c, 2); ++col) sum += arch::to_f32(kernel[3 * row + col]);
    const T stored = arch::from_f32<T>(sum);
    carried = sum - arch::to_f32(stored);
    to[(4 * r + c) * matrix] = stored;
  }
}

}  // namespace

#define ENTRY_FROM(T, dtype, File, file)                                                \
  extern "C" __global__ void __launch_bounds__(256)                                     \
      upsample_conv_fold_1_plain_from_##file##_##dtype(T* y, const File* x, Params p) { \
    fold(y, x, p);                                                                      \
  }                                                                                     \
  REGISTER_KERNEL(upsample_conv_fold_1_plain_from_##file##_##dtype)
#define ENTRY(T, dtype)           \
  ENTRY_FROM(T, dtype, float, f32) \
  ENTRY_FROM(T, dtype, bf16, bf16) \
  ENTRY_FROM(T, dtype, f16, f16)
FOR_EACH_DTYPE(ENTRY)
