// y[o, r, i] = sum of values[k] x[o, indices[k], i] over k in starts[r] .. starts[r + 1]: a sparse matrix along an axis.
//
// y: [outer, rows, inner], x: [outer, cols, inner], starts: [rows + 1], indices, values: [elements].
// One thread an element of y; threads beside each other read beside each other wherever inner is large.
#include "arch.cuh"

namespace {

struct Params {
  int len, rows, cols, inner;
};

ARCH_FN void banded(float* __restrict__ y, const float* __restrict__ x, const int* __restrict__ starts,
                    const int* __restrict__ indices, const float* __restrict__ values, Params p) {
  const u32 at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= static_cast<u32>(p.len)) return;
  const u32 line = at / p.inner, i = at % p.inner;
  const u32 o = line / p.rows, r = line % p.rows;
  x += static_cast<size_t>(o) * p.cols * p.inner + i;  // (cols, inner) from this column on
  float sum = 0.0f;
  for (int k = starts[r]; k < starts[r + 1]; ++k) sum += values[k] * x[static_cast<size_t>(indices[k]) * p.inner];
  y[at] = sum;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) banded_fwd_1_plain_f32(
    float* y, const float* x, const int* starts, const int* indices, const float* values, Params p) {
  banded(y, x, starts, indices, values, p);
}
REGISTER_KERNEL(banded_fwd_1_plain_f32)
