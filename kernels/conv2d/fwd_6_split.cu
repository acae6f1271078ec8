// parts[c, p, o] = sum over chunk c of the taps and inputs of x[source(p, tap), i] w[tap, i, o], on tensor cores
//
// parts: [chunks, n, ho, wo, o] in float, x: [n, h, w, i], w: [k, k, i, o]. The implicit product of
// fwd_2_tensor_cores.cu, whose depth is cut into chunks that blocks of their own sum: for images of few pixels.
// sum/parts.cu adds the chunks, bias, shift and residual. Any k, stride and padding; i and o are multiples of 8. The
// parts are tile sizes.
#include "convolution.cuh"

#define ENTRY_OF(name, T, SIZE, BLOCKS)                                                   \
  extern "C" __global__ void __launch_bounds__(tile::Shape<SIZE, SIZE>::THREADS, BLOCKS)  \
      name(float* parts, const T* x, const T* w, convolution::Cut p) {                    \
    convolution::forward<tile::Shape<SIZE, SIZE>>(parts, x, w, p);                        \
  }                                                                                       \
  REGISTER_KERNEL(name)
#define ENTRY(T, dtype)                               \
  ENTRY_OF(conv2d_fwd_6_split_128_##dtype, T, 128, 2) \
  ENTRY_OF(conv2d_fwd_6_split_64_##dtype, T, 64, 4)
FOR_EACH_HALF(ENTRY)
