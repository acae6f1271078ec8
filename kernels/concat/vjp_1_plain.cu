// [da, db] = dy: the split that reverses a concat along the last dimension.
//
// da: [rows, ca], db: [rows, cb], dy: [rows, ca + cb]. One thread an element of dy. Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int rows, ca, cb;
};

template <class T> ARCH_FN void split(T* __restrict__ da, T* __restrict__ db, const T* __restrict__ dy, Params p) {
  const size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t row = i / (p.ca + p.cb);
  const int c = static_cast<int>(i % (p.ca + p.cb));
  if (row < static_cast<size_t>(p.rows)) (c < p.ca ? da[row * p.ca + c] : db[row * p.cb + c - p.ca]) = dy[i];
}

}  // namespace

#define ENTRY(T, dtype)                                                 \
  extern "C" __global__ void __launch_bounds__(256)                     \
      concat_vjp_1_plain_##dtype(T* da, T* db, const T* dy, Params p) { \
    split(da, db, dy, p);                                               \
  }                                                                     \
  REGISTER_KERNEL(concat_vjp_1_plain_##dtype)
FOR_EACH_DTYPE(ENTRY)
