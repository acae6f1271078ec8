// y[tap, i, o] = x[o, i, tap], converted: a convolution's weight from the checkpoint's layout and type to the engine's.
//
// y: [taps, inputs, outputs] of storage type T, x: [outputs, inputs, taps] of the file's type. One thread an element
// of y, so that the writes are contiguous; it runs once a weight. A vector or matrix that keeps its order has
// taps = outputs = 1. Any sizes.
#include "arch.cuh"

namespace {

struct Params {
  int taps, inputs, outputs;
};

template <class T, class File>
ARCH_FN void repack(T* __restrict__ y, const File* __restrict__ x, Params p) {
  const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const size_t outputs = p.outputs, inputs = p.inputs, taps = p.taps;
  if (at >= taps * inputs * outputs) return;
  const size_t o = at % outputs, i = at / outputs % inputs, tap = at / outputs / inputs;
  y[at] = arch::from_f32<T>(arch::to_f32(x[(o * inputs + i) * taps + tap]));
}

}  // namespace

#define ENTRY_FROM(T, dtype, File, file)                                           \
  extern "C" __global__ void __launch_bounds__(256)                                \
      repack_fwd_1_plain_from_##file##_##dtype(T* y, const File* x, Params p) {    \
    repack(y, x, p);                                                               \
  }                                                                                \
  REGISTER_KERNEL(repack_fwd_1_plain_from_##file##_##dtype)
#define ENTRY(T, dtype)           \
  ENTRY_FROM(T, dtype, float, f32) \
  ENTRY_FROM(T, dtype, bf16, bf16) \
  ENTRY_FROM(T, dtype, f16, f16)
FOR_EACH_DTYPE(ENTRY)
