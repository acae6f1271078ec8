// y = [a, b] along the last dimension.
//
// y: [rows, ca + cb], a: [rows, ca], b: [rows, cb]. One thread for 16 bytes of y. Wants ca and cb to be whole 16 bytes;
// they count packs here.
#include "vector.cuh"

namespace {

struct Params {
  int packs, ca, cb;
};

template <class T> ARCH_FN void concat(T* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b, Params p) {
  using Copy = Pack<T, vec::WIDTH<T>>;
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x, both = p.ca + p.cb;
  if (i >= static_cast<u32>(p.packs)) return;
  const u32 row = i / both, c = i % both, ca = p.ca;
  const Copy* const from = c < ca ? reinterpret_cast<const Copy*>(a) + static_cast<size_t>(row) * ca + c
                                  : reinterpret_cast<const Copy*>(b) + static_cast<size_t>(row) * p.cb + c - ca;
  reinterpret_cast<Copy*>(y)[i] = *from;
}

}  // namespace

#define ENTRY(T, dtype)                                                     \
  extern "C" __global__ void __launch_bounds__(256)                         \
      concat_fwd_2_vector_##dtype(T* y, const T* a, const T* b, Params p) { \
    concat(y, a, b, p);                                                     \
  }                                                                         \
  REGISTER_KERNEL(concat_fwd_2_vector_##dtype)
FOR_EACH_DTYPE(ENTRY)
