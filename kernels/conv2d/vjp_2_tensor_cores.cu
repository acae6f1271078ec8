// dx[q, i] = bias[i] + sum over taps and outputs of dy[target(q, tap), o] w[tap, i, o], on tensor cores
//
// dx: [n, h, w, i], dy: [n, ho, wo, o], w: [k, k, i, o], bias: [i]. The forward pass's implicit product with the roles
// exchanged: [pixels of x, k k o] and [k k o, i]. w lies along the depth o: no flipped or transposed copy of it is
// made. Stride 1, any k and padding; i and o are multiples of 8. The parts are tile sizes.
#include "convolution.cuh"

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                   \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)  \
      name(T* dx, const T* dy, const T* w, const float* bias, convolution::Params p) {    \
    convolution::vjp<tile::Shape<SIZE, SIZE>>(dx, dy, w, bias, p);                        \
  }                                                                                       \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                                      \
  ENTRY_OF(conv2d_vjp_2_tensor_cores_128_##dtype, T, 128, 2) \
  ENTRY_OF(conv2d_vjp_2_tensor_cores_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
