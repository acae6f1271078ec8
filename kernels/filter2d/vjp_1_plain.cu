// dx[row, col, c] = sum of kernel[u, v] dy[p, q, c] over all p, q, u, v that read x there: R(p + u - r) = row and
// R(q + v - r) = col, where R mirrors at the borders. The exact transpose of the filter, as a gather.
//
// dx, dy: [n, h, w, c], kernel: [k, k] with k = 2 r + 1 and r < h, w. One thread an element of dx: near a border its
// pixel shows a second time on the mirrored axis, and its sum runs over what reads it there too. Nothing is added
// across threads.
#include "arch.cuh"

namespace {

struct Params {
  int len, h, w, c, k;
};

// Index i of an axis shows on the mirrored axis as itself, left of the start and right of the end; an edge only once.
static constexpr int IMAGES = 3;
ARCH_FN int image(int which, int i, int size) { return which == 0 ? i : which == 1 ? -i : 2 * (size - 1) - i; }

// Adds one row of weights times one row of dy.
ARCH_FN float row_sum(float sum, const float* __restrict__ dy, const float* __restrict__ weights, int col, Params p) {
  const int reach = p.k / 2;
#pragma unroll
  for (int which = 0; which < IMAGES; ++which) {
    const int shown = image(which, col, p.w);
    if (which > 0 && shown == col) continue;
    const int end = min(p.k, shown + reach + 1);
    for (int v = max(0, shown + reach + 1 - p.w); v < end; ++v) {
      sum += weights[v] * dy[static_cast<size_t>(shown + reach - v) * p.c];
    }
  }
  return sum;
}

ARCH_FN void filter(float* __restrict__ dx, const float* __restrict__ dy, const float* __restrict__ kernel, Params p) {
  const u32 at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= static_cast<u32>(p.len)) return;
  const int c = at % p.c, pixel = at / p.c;
  const int col = pixel % p.w, row = pixel / p.w % p.h, n = pixel / p.w / p.h;
  const int reach = p.k / 2;
  dy += static_cast<size_t>(n) * p.h * p.w * p.c + c;  // (h, w, c) of this sample, from this channel on
  float sum = 0.0f;
#pragma unroll 1
  for (int which = 0; which < IMAGES; ++which) {
    const int shown = image(which, row, p.h);
    if (which > 0 && shown == row) continue;
    const int end = min(p.k, shown + reach + 1);
    for (int u = max(0, shown + reach + 1 - p.h); u < end; ++u) {
      sum = row_sum(sum, dy + static_cast<size_t>(shown + reach - u) * p.w * p.c, kernel + u * p.k, col, p);
    }
  }
  dx[at] = sum;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    filter2d_vjp_1_plain_f32(float* dx, const float* dy, const float* kernel, Params p) {
  filter(dx, dy, kernel, p);
}
REGISTER_KERNEL(filter2d_vjp_1_plain_f32)
