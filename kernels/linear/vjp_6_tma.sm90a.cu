// dx = dy w, by TMA and wgmma (sm_90a)
//
// dx: [rows, k], dy: [rows, m], w: [m, k]. The product of vjp_3_wgmma, whose operands are boxes that the copy
// engine takes, see patches90.cuh; w lies across the depth m. k and m are multiples of 8. The parts are columns of a
// tile.
#include "linear.cuh"
#include "patches90.cuh"

namespace {

template <int COLS, class T>
ARCH_FN void vjp(T* __restrict__ dx, const TensorMap* dy, const TensorMap* w, const linear::Params& p) {
  const tile::Output<T, T> out{dx, nullptr, nullptr, nullptr, p.rows, p.k, 1};
  patches::product<COLS, false, T>(out, dy, w, p.m);
}

}  // namespace

#define ENTRY_OF(name, T, COLS)                                                              \
  extern "C" __global__ void __launch_bounds__(patches::THREADS, 1)                          \
      name(T* dx, const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap w, \
           linear::Params p) {                                                               \
    vjp<COLS>(dx, &dy, &w, p);                                                               \
  }                                                                                          \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                          \
  ENTRY_OF(linear_vjp_6_tma_128_##dtype, T, 128) \
  ENTRY_OF(linear_vjp_6_tma_256_##dtype, T, 256)
FOR_EACH_HALF(ENTRY)
