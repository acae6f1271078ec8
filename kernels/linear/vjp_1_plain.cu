// dx = dy w + residual
//
// dx, residual: [rows, k], dy: [rows, m], w: [m, k]. One thread an element of dx, neighbours along k. Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int rows, k, m;
};

template <class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w,
                 const T* __restrict__ residual, const Params& p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<size_t>(p.rows) * p.k) return;
  const T* const from = dy + i / p.k * p.m;  // (m) this row
  const T* const weights = w + i % p.k;      // (m) every k-th
  float sum = 0.0f;
  for (int j = 0; j < p.m; ++j) sum += arch::to_f32(from[j]) * arch::to_f32(weights[static_cast<size_t>(j) * p.k]);
  dx[i] = arch::from_f32<T>(residual ? sum + arch::to_f32(residual[i]) : sum);
}

}  // namespace

#define ENTRY(T, dtype)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256)                                                                \
      linear_vjp_1_plain_##dtype(T* dx, const T* dy, const T* w, const T* residual, Params p) {                    \
    vjp(dx, dy, w, residual, p);                                                                                   \
  }                                                                                                                \
  REGISTER_KERNEL(linear_vjp_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
