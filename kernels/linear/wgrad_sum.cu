// dw = the sum over chunks of parts, in their order
//
// dw: [len], parts: [count, len], both in float whatever the activations are. One thread an element of dw.
#include "chunks.cuh"

namespace {

struct Params {
  int len, count;
};

}  // namespace

#define ENTRY(T, dtype)                                                             \
  extern "C" __global__ void __launch_bounds__(256)                                 \
      linear_wgrad_sum_##dtype(float* dw, const float* parts, Params p) {            \
    chunks::add(dw, parts, p.len, p.count);                                         \
  }                                                                                 \
  REGISTER_KERNEL(linear_wgrad_sum_##dtype)
FOR_EACH_DTYPE(ENTRY)
