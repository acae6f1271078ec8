// dx[q, i] = sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], at stride 1, for the last layer of what makes
// images
//
// dx: [n, h, w, i], dy: [n, h, w, o], w: [3, 3, i, o], by three_outputs.cuh, whose sizes and grid these are.
#include "three_outputs.cuh"
#include "vector.cuh"

namespace {

using three_outputs::N;
using three_outputs::Params;

template <class T> ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const Params& p) {
  T* const to = dx + three_outputs::Place::of(p).start(p);
  const T* const none = nullptr;
  three_outputs::each(dy, w, none, p, [&](int at, const float (&dh)[N], const float (&)[N]) { vec::store(to + at, dh); });
}

}  // namespace

#define ENTRY(T, dtype)                                                               \
  extern "C" __global__ void __launch_bounds__(three_outputs::MOST, 2)                \
      conv2d_vjp_13_three_outputs_##dtype(T* dx, const T* dy, const T* w, Params p) { \
    vjp(dx, dy, w, p);                                                                \
  }                                                                                   \
  REGISTER_KERNEL(conv2d_vjp_13_three_outputs_##dtype)
FOR_EACH_HALF(ENTRY)
