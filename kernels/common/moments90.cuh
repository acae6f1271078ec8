// The moments of what tiles of patches90.cuh store, for the group norm that reads it next: of every group of channels
// side by side, in parts of 64 pixels, what a warpgroup has of a patch. They are those of the sums in float, before these
// are rounded to be stored. What is joined has equally many values on both sides, and deviations are from means, so that
// nothing cancels.
#pragma once
#include "patches90.cuh"

namespace moments {

static constexpr int WARPS = 4;  // of a warpgroup

// Where they go: part (samples, groups, parts).
struct To {
  Two* part;  // mean, and sum of the squared deviations from it
  int groups, size, parts;  // size: channels of a group, WIDTH below or twice that, four times, ..
};

// a = the moments of a and b, of `count` values each.
ARCH_FN void join(Two& a, const Two& b, float count) {
  const float delta = b.v[0] - a.v[0];
  a.v[0] += 0.5f * delta;
  a.v[1] += b.v[1] + delta * delta * (0.5f * count);
}

ARCH_FN Two from_lane(const Two& a, int mask) {
  return {__shfl_xor_sync(0xffffffffu, a.v[0], mask), __shfl_xor_sync(0xffffffffu, a.v[1], mask)};
}

// What a thread has seen of a patch and the columns of shape S (warpgroup.cuh): the moments of eight units of WIDTH columns, each of two
// rows. Of any 32 columns a piece of 8 was its own, and of any 16 rows two.
template <class S> struct Units {
  static constexpr int WIDTH = S::COLS / 32, OF_PIECE = tile::PIECE / WIDTH, COUNT = 8;
  static constexpr float EACH = 2 * WIDTH;  // values of a unit
  Two units[COUNT] = {};
  float other[tile::PIECE];  // the first of two rows

  // A piece that it stores: of the columns of number `part`, 32 of them; of the first row or not.
  __device__ __forceinline__ void operator()(int part, bool first, const float (&piece)[tile::PIECE]) {
    if (first) {
#pragma unroll
      for (int c = 0; c < tile::PIECE; ++c) other[c] = piece[c];
      return;
    }
#pragma unroll
    for (int u = 0; u < OF_PIECE; ++u) {
      float sum = 0.0f, squares = 0.0f;
#pragma unroll
      for (int c = u * WIDTH; c < (u + 1) * WIDTH; ++c) sum += other[c] + piece[c];
      const float mean = sum * (1.0f / EACH);
#pragma unroll
      for (int c = u * WIDTH; c < (u + 1) * WIDTH; ++c) {
        const float a = other[c] - mean, b = piece[c] - mean;
        squares += a * a;
        squares += b * b;
      }
      units[part * OF_PIECE + u] = {mean, squares};
    }
  }

  // Joins those of a warpgroup, and writes the groups from column `col` on. `patch`: its number among those of the
  // sample; `turn`: among those that this block stores; smem: MOMENTS_BYTES (src/ops/conv2d/kernels.rs), two turns, so that
  // a tile's moments are read while those of the next one are written.
  __device__ __forceinline__ void write(const To& to, int sample, int patch, int col, int turn, unsigned char* smem) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % WARPS, group = threadIdx.x / 128;
    // Of the eight lanes with other rows of the same columns, half of those left keep the lower units, half the upper
    // ones, each joined with the partner's: in the end one.
#pragma unroll
    for (int half = COUNT / 2, mask = 16; half > 0; half /= 2, mask /= 2) {
      const bool upper = lane & mask;
#pragma unroll
      for (int i = 0; i < half; ++i) {
        const Two given = upper ? units[i] : units[i + half];
        if (upper) units[i] = units[i + half];
        join(units[i], from_lane(given, mask), EACH * (COUNT / 2 / half));
      }
    }
    const int own = lane / 4, unit = own / OF_PIECE * (4 * OF_PIECE) + lane % 4 * OF_PIECE + own % OF_PIECE;
    Two* const sums = reinterpret_cast<Two*>(smem) + (turn % 2 * 2 + group) * (32 * WARPS);  // (warps, units)
    sums[warp * 32 + unit] = units[0];
    arch::bar_sync(1 + group, 32 * WARPS);  // the warpgroup's moments are there; nobody reads those of the turn before
    if (warp != group) return;  // so that the warps that go on here have schedulers of their own
    Two all[WARPS];
#pragma unroll
    for (int i = 0; i < WARPS; ++i) all[i] = sums[i * 32 + lane];
    join(all[0], all[1], 16 * WIDTH);
    join(all[2], all[3], 16 * WIDTH);
    join(all[0], all[2], 32 * WIDTH);
    for (int units_of = 1; units_of * WIDTH < to.size; units_of *= 2) {
      join(all[0], from_lane(all[0], units_of), 64 * WIDTH * units_of);
    }
    const int first = col + lane * WIDTH, of = first / to.size;
    if (of * to.size == first && of < to.groups) {
      to.part[(static_cast<size_t>(sample) * to.groups + of) * to.parts + 2 * patch + group] = all[0];
    }
  }
};

}  // namespace moments
