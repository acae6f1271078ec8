// dx_i = y_i (dy_i - sum over j of dy_j y_j), for each row.
//
// dx, dy, y: [rows, c]. One warp a row, four elements a load. Requires c % 4 == 0.
#include "reduce.cuh"

namespace {

struct Params {
  int rows, c;
};

constexpr int N = 4;

template <class T>
ARCH_FN void softmax_vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ y, Params p) {
  using Packed = Pack<T, N>;
  const int lane = threadIdx.x % reduce::WARP, packs = p.c / N;
  const size_t row = static_cast<size_t>(blockIdx.x) * (blockDim.x / reduce::WARP) + threadIdx.x / reduce::WARP;
  if (row >= static_cast<size_t>(p.rows)) return;
  Packed* const to = reinterpret_cast<Packed*>(dx + row * p.c);                     // (c / N)
  const Packed* const cotangents = reinterpret_cast<const Packed*>(dy + row * p.c);  // (c / N)
  const Packed* const outputs = reinterpret_cast<const Packed*>(y + row * p.c);      // (c / N)

  float dot = 0.0f;
  for (int i = lane; i < packs; i += reduce::WARP) {
    const Packed dv = cotangents[i], v = outputs[i];
#pragma unroll
    for (int j = 0; j < N; ++j) dot += arch::to_f32(dv.v[j]) * arch::to_f32(v.v[j]);
  }
  dot = reduce::warp_sum(dot);
  for (int i = lane; i < packs; i += reduce::WARP) {
    Packed dv = cotangents[i];
    const Packed v = outputs[i];
#pragma unroll
    for (int j = 0; j < N; ++j) dv.v[j] = arch::from_f32<T>(arch::to_f32(v.v[j]) * (arch::to_f32(dv.v[j]) - dot));
    to[i] = dv;
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(128)                                                                  \
      softmax_vjp_2_vector_##dtype(T* dx, const T* dy, const T* y, Params p) {                                       \
    softmax_vjp(dx, dy, y, p);                                                                                       \
  }                                                                                                                  \
  REGISTER_KERNEL(softmax_vjp_2_vector_##dtype)
FOR_EACH_DTYPE(ENTRY)
