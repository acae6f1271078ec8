// y[p, q, c] = sum of kernel[u, v] x[R(p + u - r), R(q + v - r), c]: one filter for every channel, where R mirrors an
// index at the borders without repeating the edge.
//
// y, x: [n, h, w, c], kernel: [k, k] with k = 2 r + 1 and r < h, w. One thread an element of y. A weight is the same for
// the whole warp, so that those of zero, most of a motion blur's, cost no load of x.
#include "arch.cuh"

namespace {

struct Params {
  int len, h, w, c, k;
};

// The index inside [0, size) that shows at index `i` of the mirrored axis.
ARCH_FN int mirror(int i, int size) {
  const int inside = i < 0 ? -i : i;
  return inside < size ? inside : 2 * (size - 1) - inside;
}

ARCH_FN void filter(float* __restrict__ y, const float* __restrict__ x, const float* __restrict__ kernel, Params p) {
  const u32 at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= static_cast<u32>(p.len)) return;
  const int c = at % p.c, pixel = at / p.c;
  const int col = pixel % p.w, row = pixel / p.w % p.h, n = pixel / p.w / p.h;
  const int reach = p.k / 2;
  x += static_cast<size_t>(n) * p.h * p.w * p.c + c;  // (h, w, c) of this sample, from this channel on
  float sum = 0.0f;
  for (int u = 0; u < p.k; ++u) {
    const size_t line = static_cast<size_t>(mirror(row + u - reach, p.h)) * p.w;
    for (int v = 0; v < p.k; ++v) {
      const float weight = kernel[u * p.k + v];
      if (weight != 0.0f) sum += weight * x[(line + mirror(col + v - reach, p.w)) * p.c];
    }
  }
  y[at] = sum;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
    filter2d_fwd_1_plain_f32(float* y, const float* x, const float* kernel, Params p) {
  filter(y, x, kernel, p);
}
REGISTER_KERNEL(filter2d_fwd_1_plain_f32)
