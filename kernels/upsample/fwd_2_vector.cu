// y[i, j] = x[i / 2, j / 2]: twice as high and wide, nearest neighbour.
//
// y: [2 rows, 2w, c], x: [rows, w, c], where rows are the image rows of all samples. One thread for 16 bytes of x, read
// once and written four times. Wants c to be whole 16 bytes; it counts packs here.
#include "vector.cuh"

namespace {

struct Params {
  int packs, w, c;
};

template <class T> ARCH_FN void upsample(T* __restrict__ y, const T* __restrict__ x, Params p) {
  using Copy = Pack<T, vec::WIDTH<T>>;
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= static_cast<u32>(p.packs)) return;
  const u32 pixel = i / p.c, row = pixel / p.w, col = pixel % p.w;
  const Copy pack = reinterpret_cast<const Copy*>(x)[i];
  Copy* const above = reinterpret_cast<Copy*>(y) + (4 * static_cast<size_t>(row) * p.w + 2 * col) * p.c + i % p.c;
  Copy* const below = above + 2 * static_cast<size_t>(p.w) * p.c;
  above[0] = pack;
  above[p.c] = pack;
  below[0] = pack;
  below[p.c] = pack;
}

}  // namespace

#define ENTRY(T, dtype)                                           \
  extern "C" __global__ void __launch_bounds__(256)               \
      upsample_fwd_2_vector_##dtype(T* y, const T* x, Params p) { \
    upsample(y, x, p);                                            \
  }                                                               \
  REGISTER_KERNEL(upsample_fwd_2_vector_##dtype)
FOR_EACH_DTYPE(ENTRY)
