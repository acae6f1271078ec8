// [da, db] = dy: the split that reverses a concat along the last dimension.
//
// da: [rows, ca], db: [rows, cb], dy: [rows, ca + cb]. One thread for 16 bytes of dy. Wants ca and cb to be whole
// 16 bytes; they count packs here.
#include "vector.cuh"

namespace {

struct Params {
  int packs, ca, cb;
};

template <class T> ARCH_FN void split(T* __restrict__ da, T* __restrict__ db, const T* __restrict__ dy, Params p) {
  using Copy = Pack<T, vec::WIDTH<T>>;
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x, both = p.ca + p.cb;
  if (i >= static_cast<u32>(p.packs)) return;
  const u32 row = i / both, c = i % both, ca = p.ca;
  Copy* const to = c < ca ? reinterpret_cast<Copy*>(da) + static_cast<size_t>(row) * ca + c
                          : reinterpret_cast<Copy*>(db) + static_cast<size_t>(row) * p.cb + c - ca;
  *to = reinterpret_cast<const Copy*>(dy)[i];
}

}  // namespace

#define ENTRY(T, dtype)                                                  \
  extern "C" __global__ void __launch_bounds__(256)                      \
      concat_vjp_2_vector_##dtype(T* da, T* db, const T* dy, Params p) { \
    split(da, db, dy, p);                                                \
  }                                                                      \
  REGISTER_KERNEL(concat_vjp_2_vector_##dtype)
FOR_EACH_DTYPE(ENTRY)
