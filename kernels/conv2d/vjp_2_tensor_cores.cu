// dx[q, i] = bias[i] + sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], on tensor cores
//
// dx: [n, h, w, i], dy: [n, ho, wo, o], w: [k, k, i, o], bias: [i]. The forward pass's implicit product with the roles
// exchanged: [pixels of x, k k o] and [k k o, i]. w lies along the depth o: no flipped or transposed copy of it is
// made. Stride 1, any k and padding; i and o are multiples of 8. The parts are tile sizes.
#include "taps.cuh"

namespace {

struct Params {
  int rows;  // pixels of dx, of all samples
  int x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

template <class S, class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const float* __restrict__ bias,
                 const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  const auto taps = taps::Taps::all(p.k);
  taps::Pixels<T, S, -1> a({dy, p.y_height, p.y_width, p.outputs}, taps,
                           {p.rows, p.x_height, p.x_width, 1, p.before, p.before}, row);
  taps::Weights<T, S> b(w, taps, p.inputs, p.outputs, col);
  float acc[S::I][S::J][4];
  tile::multiply<T, S>(acc, a, b, p.k * p.k * p.outputs, smem);
  tile::store<S>(tile::Output<T, T>{dx, bias, nullptr, nullptr, p.rows, p.inputs, 1}, acc, row, col, smem);
}

}  // namespace

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                   \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)  \
      name(T* dx, const T* dy, const T* w, const float* bias, Params p) {                 \
    vjp<tile::Shape<SIZE, SIZE>>(dx, dy, w, bias, p);                                     \
  }                                                                                       \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                     \
  ENTRY_OF(conv2d_vjp_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(conv2d_vjp_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
