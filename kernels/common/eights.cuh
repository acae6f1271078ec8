// Products on tensor cores of what lanes have in registers: 16 bytes of a row each, four lanes a row of 32.
//
// mma wants of lane t the depth's pairs 2 t and 2 t + 8. But its order is free where both operands have the same: here lane
// t = lane % 4 has 8 t .. 8 t + 7 of a depth of 32, which two mmas of 16 multiply.
#pragma once
#include "arch.cuh"

namespace eights {

static constexpr int WARP = 32, DEPTH = 32, ROWS = 16, COLS = 8;

// Eight values of the depth, by pairs.
using Eight = Pack<u32, 4>;

// d[i][j] (16 x 8) += a[i] (16 x 32) b[j] (32 x 8). With g = lane / 4, a lane has rows g and g + 8 of a and column g of b.
template <class T, int I, int J>
ARCH_FN void multiply(float (&d)[I][J][4], const Eight (&a)[I][2], const Eight (&b)[J]) {
#pragma unroll
  for (int k = 0; k < 4; k += 2) {
    u32 rows[I][4], cols[J][2];
#pragma unroll
    for (int i = 0; i < I; ++i) {
#pragma unroll
      for (int of = 0; of < 4; ++of) rows[i][of] = a[i][of % 2].v[k + of / 2];
    }
#pragma unroll
    for (int j = 0; j < J; ++j) {
#pragma unroll
      for (int of = 0; of < 2; ++of) cols[j][of] = b[j].v[k + of];
    }
    arch::mma<T>(d, rows, cols);
  }
}

// Eight values that lie `pitch` elements apart.
template <class T> ARCH_FN Eight gather(const T* from, int pitch) {
  Eight all;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const T low = from[2 * k * pitch], high = from[(2 * k + 1) * pitch];
    all.v[k] = static_cast<u32>(low.x) | static_cast<u32>(high.x) << 16;
  }
  return all;
}

}  // namespace eights
