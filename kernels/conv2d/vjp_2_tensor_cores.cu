// dx[q, i] = sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], on tensor cores
//
// dx: [n, h, w, i], dy: [n, ho, wo, o], w: [k, k, i, o]. The forward pass's implicit product with the roles exchanged:
// [pixels of x, k k o] and [k k o, i]. w lies along the depth o: no flipped or transposed copy of it is made. Where a
// stride lets no pixel of y meet pixel q at a tap, zeros are gathered: at stride 2, three products of four are for
// nothing.
// Strides 1 and 2, any k and padding; i and o are multiples of 8. The parts are tile sizes.
#include "taps.cuh"

namespace {

struct Params {
  int rows;  // pixels of dx, of all samples
  int x_height, x_width, y_height, y_width, inputs, outputs, k, stride, before;
};

template <class S, class T>
ARCH_FN void vjp(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const Params& p) {
  DYN_SMEM(smem);
  const int row = blockIdx.x * S::ROWS, col = blockIdx.y * S::COLS;
  const int pixels = p.x_height * p.x_width, log_stride = p.stride - 1;
  taps::Pixels<T, S::ROWS, S::THREADS, -1> a({dy, p.y_height, p.y_width, p.outputs}, p.k, log_stride, p.rows,
                                             p.x_height, p.x_width, 1, p.before, row);
  taps::Weights<T, S::COLS, S::THREADS> b(w, p.k, p.inputs, p.outputs, col);
  float acc[S::I][S::J][4];
  tile::multiply<T, S>(acc, a, b, p.k * p.k * p.outputs, smem);
  const tile::Output<T, T> out{dx, nullptr, nullptr, nullptr, p.rows, p.inputs, pixels};
  tile::store<S>(out, acc, row, col, smem);
}

}  // namespace

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                   \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)  \
      name(T* dx, const T* dy, const T* w, Params p) {                                    \
    vjp<tile::Shape<SIZE, SIZE>>(dx, dy, w, p);                                           \
  }                                                                                       \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                     \
  ENTRY_OF(conv2d_vjp_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(conv2d_vjp_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
