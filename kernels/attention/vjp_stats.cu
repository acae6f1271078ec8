// What the backward passes need of each query: lse and delta = sum over d of dy o, side by side.
//
// stats: [samples, heads, padded], pairs (lse log2 e, delta) in f32; dy, o: [samples, tq, heads * d]; lse: [samples,
// heads, tq], f32. Past the last query, up to `padded`: (infinity, 0), so that exp2(score - lse) is 0 there. One warp a
// query and head. Requires d % 8 == 0.
#include "flash.cuh"
#include "reduce.cuh"

namespace {

struct Params {
  int heads, d, tq, padded;
};

constexpr int N = 8;

template <class T>
ARCH_FN void row_stats(float* __restrict__ stats, const T* __restrict__ dy, const T* __restrict__ o,
                       const float* __restrict__ lse, Params p) {
  const int lane = threadIdx.x % reduce::WARP;
  const int i = blockIdx.x * (blockDim.x / reduce::WARP) + threadIdx.x / reduce::WARP;
  const size_t head = static_cast<size_t>(blockIdx.z) * p.heads + blockIdx.y;
  const bool real = i < p.tq;
  float delta = 0.0f;
  if (real) {
    const size_t row = (static_cast<size_t>(blockIdx.z) * p.tq + i) * p.heads * p.d + blockIdx.y * p.d;
    for (int c = lane * N; c < p.d; c += reduce::WARP * N) {
      const Pack<T, N> cotangent = *reinterpret_cast<const Pack<T, N>*>(dy + row + c);
      const Pack<T, N> output = *reinterpret_cast<const Pack<T, N>*>(o + row + c);
#pragma unroll
      for (int j = 0; j < N; ++j) delta += arch::to_f32(cotangent.v[j]) * arch::to_f32(output.v[j]);
    }
  }
  delta = reduce::warp_sum(delta);
  if (lane == 0 && i < p.padded) {
    const Pack<float, 2> pair{{real ? lse[head * p.tq + i] * flash::LOG2E : flash::infinity(), delta}};
    reinterpret_cast<Pack<float, 2>*>(stats)[head * p.padded + i] = pair;
  }
}

}  // namespace

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(128)                                                                  \
      attention_vjp_stats_##dtype(float* stats, const T* dy, const T* o, const float* lse, Params p) {              \
    row_stats(stats, dy, o, lse, p);                                                                                   \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_vjp_stats_##dtype)
FOR_EACH_HALF(ENTRY)
