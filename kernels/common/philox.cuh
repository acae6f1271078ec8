// Counter-based normals: element for element the field that src/rng.rs has at an address.
#pragma once
#include "arch.cuh"

namespace philox {

// Words of an address in memory: key low, key high, sample, step, draw.
static constexpr int WORDS = 5;
// Elements of a field that one counter gives.
static constexpr int BLOCK = 4;

// Philox4x32 with ten rounds: the counter becomes four random words.
ARCH_FN void philox4x32_10(u32 (&c)[BLOCK], u32 key0, u32 key1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const u32 high0 = __umulhi(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0];
    const u32 high1 = __umulhi(0xCD9E8D57u, c[2]), low1 = 0xCD9E8D57u * c[2];
    c[0] = high1 ^ c[1] ^ key0;
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ key1;
    c[3] = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// In (0, 1), both excluded.
ARCH_FN double unit(u32 word) { return (word + 0.5) * (1.0 / 4294967296.0); }

// Elements 4 block .. 4 block + 4 of the normal field at an address. In double, as everywhere: all runtimes draw the
// same numbers.
ARCH_FN void normals(float (&n)[BLOCK], const int* __restrict__ address, u32 block) {
  u32 words[BLOCK] = {block, static_cast<u32>(address[4]), static_cast<u32>(address[3]), static_cast<u32>(address[2])};
  philox4x32_10(words, static_cast<u32>(address[0]), static_cast<u32>(address[1]));
#pragma unroll
  for (int pair = 0; pair < BLOCK; pair += 2) {
    const double radius = sqrt(-2.0 * log(unit(words[pair])));
    double sin, cos;
    arch::sincospi(2.0 * unit(words[pair + 1]), &sin, &cos);
    n[pair] = static_cast<float>(radius * cos);
    n[pair + 1] = static_cast<float>(radius * sin);
  }
}

}  // namespace philox
