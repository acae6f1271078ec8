// y_i = exp(x_i - max x) / sum over j of exp(x_j - max x), for each row.
//
// x, y: [rows, c]. One warp a row, four elements a load; maximum and sum in one pass, each lane rescaling its sum when
// its maximum grows: the row is read twice instead of three times. Requires c % 4 == 0.
#include "reduce.cuh"

namespace {

struct Params {
  int rows, c;
};

constexpr int N = 4;

template <class T> ARCH_FN void softmax(T* __restrict__ y, const T* __restrict__ x, Params p) {
  using Packed = Pack<T, N>;
  const int lane = threadIdx.x % reduce::WARP, packs = p.c / N;
  const size_t row = static_cast<size_t>(blockIdx.x) * (blockDim.x / reduce::WARP) + threadIdx.x / reduce::WARP;
  if (row >= static_cast<size_t>(p.rows)) return;
  const Packed* const from = reinterpret_cast<const Packed*>(x + row * p.c);  // (c / N)
  Packed* const to = reinterpret_cast<Packed*>(y + row * p.c);                // (c / N)

  float most = arch::to_f32(x[row * p.c]), total = 0.0f;
  for (int i = lane; i < packs; i += reduce::WARP) {
    const Packed v = from[i];
    const float before = most;
#pragma unroll
    for (int j = 0; j < N; ++j) most = fmaxf(most, arch::to_f32(v.v[j]));
    total *= expf(before - most);
#pragma unroll
    for (int j = 0; j < N; ++j) total += expf(arch::to_f32(v.v[j]) - most);
  }
  const float largest = reduce::warp_max(most);
  const float share = 1.0f / reduce::warp_sum(total * expf(most - largest));
  for (int i = lane; i < packs; i += reduce::WARP) {
    Packed v = from[i];
#pragma unroll
    for (int j = 0; j < N; ++j) v.v[j] = arch::from_f32<T>(expf(arch::to_f32(v.v[j]) - largest) * share);
    to[i] = v;
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(128) softmax_fwd_2_vector_##dtype(T* y, const T* x, Params p) {       \
    softmax(y, x, p);                                                                                                \
  }                                                                                                                  \
  REGISTER_KERNEL(softmax_fwd_2_vector_##dtype)
FOR_EACH_DTYPE(ENTRY)
