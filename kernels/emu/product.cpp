// The one dense product under every tensor instruction: a row of B times a broadcast element of A, in the widest
// vectors the processor has. Each element is summed over k in order and without fusion (-ffp-contract=off), so all
// widths give the same bits.
#include "state.h"

namespace emu {

typedef float Vector4 __attribute__((vector_size(16)));
typedef float Vector8 __attribute__((vector_size(32)));
typedef float Vector16 __attribute__((vector_size(64)));

// A macro, because a template takes no target of its own for each instance.
#define EMU_PRODUCT(name, Vector, attribute)                                                         \
  attribute static void name(float* c, const float* a, const float* b, int rows, int n) {            \
    constexpr int WIDTH = sizeof(Vector) / sizeof(float), GROUP = 8;                                 \
    for (int row = 0; row < rows; row += GROUP) {                                                    \
      for (int column = 0; column < n; column += WIDTH) {                                            \
        Vector sum[GROUP];                                                                           \
        for (int r = 0; r < GROUP; ++r) __builtin_memcpy(&sum[r], c + (row + r) * n + column, sizeof(Vector)); \
        _Pragma("GCC unroll 16") for (int k = 0; k < 16; ++k) {                                      \
          Vector b_row;                                                                              \
          __builtin_memcpy(&b_row, b + k * n + column, sizeof(Vector));                              \
          _Pragma("GCC unroll 8") for (int r = 0; r < GROUP; ++r) sum[r] += a[(row + r) * 16 + k] * b_row; \
        }                                                                                            \
        for (int r = 0; r < GROUP; ++r) __builtin_memcpy(c + (row + r) * n + column, &sum[r], sizeof(Vector)); \
      }                                                                                              \
    }                                                                                                \
  }
EMU_PRODUCT(product_4, Vector4, )
EMU_PRODUCT(product_8, Vector8, __attribute__((target("avx2"))))
EMU_PRODUCT(product_16, Vector16, __attribute__((target("avx512f"))))
#undef EMU_PRODUCT

void product16(float* c, const float* a, const float* b, int rows, int n) {
  if (n % 16 == 0 && __builtin_cpu_supports("avx512f")) return product_16(c, a, b, rows, n);
  if (__builtin_cpu_supports("avx2")) return product_8(c, a, b, rows, n);
  product_4(c, a, b, rows, n);
}

}  // namespace emu
