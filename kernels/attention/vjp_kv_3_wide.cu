// dk = scale ds^T q and dv = p^T dy, from p and ds (without its scale) in memory, see vjp_3_wide.cu.
//
// A launch for each: c = scale a^T b with c: [samples, tk, heads * d], a: [samples, heads, tq, pitch], b: [samples, tq,
// heads * d]. Requires d % 8 == 0, pitch % 8 == 0.
#include "product.cuh"

namespace {

struct Params {
  int heads;
  product::Matrix a, b, c;
  float scale;
};

template <class T>
ARCH_FN void keys(T* __restrict__ c, const T* __restrict__ a, const T* __restrict__ b, const Params& p) {
  c += product::start(p.c, p.heads);
  a += product::start(p.a, p.heads);
  b += product::start(p.b, p.heads);
  product::run<T, true, true>(a, p.a, b, p.b, p.c, p.b.rows, [&](int row, int col, float x, float y) {
    product::put(c, p.c, row, col, p.scale * x, p.scale * y);
  });
}

}  // namespace

#define ENTRY(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(256)                                                                  \
      attention_vjp_kv_3_wide_##dtype(T* c, const T* a, const T* b, Params p) {                                      \
    keys(c, a, b, p);                                                                                                \
  }                                                                                                                  \
  REGISTER_KERNEL(attention_vjp_kv_3_wide_##dtype)
FOR_EACH_HALF(ENTRY)
