// parts[c, q, i] = sum over chunk c of the taps and outputs of dy[target(q, tap), o] w[tap, i, o], on tensor cores
//
// parts: [chunks, n, h, w, i] in float, dy: [n, ho, wo, o], w: [k, k, i, o]. The implicit product of
// vjp_2_tensor_cores.cu, whose depth is cut into chunks that blocks of their own sum: for images of few pixels.
// sum/parts.cu adds the chunks and bias. Stride 1, any k and padding; i and o are multiples of 8. The parts are tile
// sizes.
#include "convolution.cuh"

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                   \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)  \
      name(float* parts, const T* dy, const T* w, convolution::Cut p) {                   \
    convolution::vjp<tile::Shape<SIZE, SIZE>>(parts, dy, w, p);                           \
  }                                                                                       \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                               \
  ENTRY_OF(conv2d_vjp_7_split_128_##dtype, T, 128, 2) \
  ENTRY_OF(conv2d_vjp_7_split_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
