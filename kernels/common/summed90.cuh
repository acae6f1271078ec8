// Backward convolutions as those of halo90.cuh, which also make the sums that the vjp of the group norm before them
// begins with: over a group those of dxhat and dxhat xhat, with xhat = (x - mean) rstd, dxhat = du w, and du = dx, or dx
// times the slope of SiLU at xhat w + b.
//
// Three warps of the copying warpgroup read a tile of dx back when it has been stored, rounded, and the same of x, while
// the next one is multiplied. A block's last tile has no next one: it is left to the warps that have multiplied. Either
// way a warp takes a unit, the tile's 256 pixels by 16 channels, in one order, so the bits are those of the unit; the sums
// of a group over the tile are its part.
//
// Where these warps also make what is multiplied (made90.cuh), they sum a share of the tile before after each box. They
// wait for that tile to be stored, for which nothing is missing that they have to make; and nobody who multiplies a tile
// waits for sums but of the tile two before it, which were finished before its boxes.
#pragma once
#include "convolution90.cuh"
#include "halo90.cuh"
#include "math.cuh"
#include "vector.cuh"

namespace halo {

// What is summed, in groups of 4, 8 or 16 channels, and where to: part (samples, groups, tiles of a sample).
template <class T> struct Norm {
  Two* part;
  const T *dx, *x;                   // (samples, height, width, channels)
  const float *mean, *rstd, *w, *b;  // (samples, groups), (channels)
  int channels, groups, silu;
};

// Of images that are as large as the result. Base: Boxes, or what makes their image.
template <class Base_, class T> struct Summed : Base_ {
  using Base = Base_;
  static constexpr int OF_HELPER = Base::Registers::COPIER > 104 ? Base::Registers::COPIER : 104;
  using Registers = patches::Registers<OF_HELPER, (3 * 168 - OF_HELPER) / 2>;
  using Stored = ring90::Ring<2, 0>;  // tiles that are yet to be summed
  struct Operands {
    typename Base::Operands raw;
    Norm<T> norm;
    int tiles;  // of all blocks
  };
  static constexpr int COPIERS = 32 * (1 + HELPERS);
  static constexpr int SIZE = Base::SIZE + Stored::SIZE;
  static constexpr int CHANNELS = 16, UNITS = Base::S::COLS / CHANNELS;  // of a unit, of a tile
  static_assert(UNITS == patches::MULTIPLIERS / 32, "of the last tile each warp that multiplied sums one");
  Stored tiles;
  Norm<T> norm;
  int turn = 0, last;        // the number of this thread's next tile, and of the block's last one
  int patch = -1, col = -1;  // of the tile before

  __device__ __forceinline__ Summed(unsigned char* smem, const Operands& from)
      : Base(smem, from.raw), tiles{arch::smem_u32(smem) + Base::SIZE}, norm(from.norm),
        last((from.tiles - 1 - static_cast<int>(blockIdx.x)) / static_cast<int>(gridDim.x)) {}

  __device__ __forceinline__ void init() const {
    tiles.init(patches::MULTIPLIERS / 32, HELPERS);
    Base::init();
  }

  // The first warp asks for the steps of a tile; the others make what there is to be made of them, and sum the tile before.
  template <class Grid> __device__ __forceinline__ void copy(const patches::Tile<Grid>& tile) {
    if (helper() == ASKING) this->ask(tile);
    if (helper() < 0) return;
    const patches::Tile<Grid> before{tile.work, patch, col};
    Base::make(tile, [&](int i, int n) {
      if (before.patch >= 0) share(before, i * UNITS / n, (i + 1) * UNITS / n);
    });
    if (before.patch >= 0) tiles.release(turn++);
    patch = tile.patch;
    col = tile.col;
  }

  // By those who multiply: a tile has been stored.
  __device__ __forceinline__ void stored() {
    if (turn == last) return;
    tiles.await_empty(turn);
    ring90::announce(tiles.full(turn++));
  }

  // And it was the block's last one.
  template <class Grid> __device__ __forceinline__ void ended(const patches::Tile<Grid>& tile) const {
    arch::bar_sync(1, patches::MULTIPLIERS);  // all of it is stored
    sum(tile, threadIdx.x / 32);
  }

 private:
  // By a helper's warp: those of the units from first to end that are its own, when the tile has been stored.
  template <class Grid> __device__ __forceinline__ void share(const patches::Tile<Grid>& tile, int first, int end) const {
    for (int unit = first; unit < end; ++unit) {
      if ((turn * UNITS + unit) % HELPERS != helper() / 32) continue;
      tiles.await(turn);
      sum(tile, unit);
    }
  }

  // The pieces of a row, and on to the next one.
  static __device__ __forceinline__ void load(Piece& of_x, Piece& of_dx, const T*& x, const T*& dx, int pitch) {
    of_x = *reinterpret_cast<const Piece*>(x);
    of_dx = *reinterpret_cast<const Piece*>(dx);
    x += pitch;
    dx += pitch;
  }

  // By a warp. Two lanes have the channels of a pixel, the others those of the pixels beside it.
  template <class Grid> __device__ __forceinline__ void sum(const patches::Tile<Grid>& tile, int unit) const {
    constexpr int PIECE = tile::PIECE, HALF = PIECE / 2, AT_ONCE = 4, ROWS = PATCHES * patches::HEIGHT;
    const auto& [work, patch, col] = tile;
    const Grid& grid = work.grid;
    const int lane = threadIdx.x % 32, size = norm.channels / norm.groups;  // of a group
    const int first = col + unit * CHANNELS, channel = first + lane % 2 * PIECE;
    if (first >= norm.channels) return;
    const int row = grid.row(patch), of_row = grid.col(patch);
    const size_t sample = grid.sample(patch), group_0 = sample * norm.groups;
    float sums[2] = {}, products[2] = {};  // of dxhat and dxhat xhat, of either half of the channels
    if (channel < norm.channels) {
      const size_t pixel = (sample * grid.height + row) * grid.width + of_row + lane / 2;
      const T *x = norm.x + pixel * norm.channels + channel, *dx = norm.dx + pixel * norm.channels + channel;
      const int pitch = grid.width * norm.channels;
      Piece of_x[AT_ONCE], of_dx[AT_ONCE];  // of rows that are on their way
#pragma unroll
      for (int k = 0; k < AT_ONCE; ++k) load(of_x[k], of_dx[k], x, dx, pitch);
      float mu[2], r[2], w[PIECE], b[PIECE];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const size_t group = group_0 + (channel + half * HALF) / size;
        mu[half] = norm.mean[group];
        r[half] = norm.rstd[group];
      }
      vec::load(w, norm.w + channel);
      vec::load(b, norm.b + channel);
#pragma unroll 1
      for (int y = 0; y < ROWS; y += AT_ONCE) {
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
#pragma unroll
          for (int c = 0; c < PIECE; ++c) {
            const float xhat = (value<T>(of_x[k], c) - mu[c / HALF]) * r[c / HALF];
            float dxhat = value<T>(of_dx[k], c) * w[c];
            if (norm.silu) dxhat *= math::fast_silu_slope(xhat * w[c] + b[c]);
            sums[c / HALF] += dxhat;
            products[c / HALF] += dxhat * xhat;
          }
          if (y + AT_ONCE < ROWS) load(of_x[k], of_dx[k], x, dx, pitch);
        }
      }
    }
#pragma unroll
    for (int mask = 16; mask > 1; mask /= 2) {
      add_lane(sums, mask);
      add_lane(products, mask);
    }
    if (size > HALF) {
      sums[0] = sums[1] = sums[0] + sums[1];
      products[0] = products[1] = products[0] + products[1];
    }
    if (size > PIECE) {
      add_lane(sums, 1);
      add_lane(products, 1);
    }
    // Lanes of the same channels have the same: of the first four each writes the group that begins with its half.
    const int half = lane / 2, begin = channel + half * HALF;
    if (half < 2 && begin < norm.channels && begin % size == 0) {
      const int of = row / ROWS * grid.across() + of_row / patches::WIDTH, parts = grid.of_sample() / PATCHES;
      norm.part[(group_0 + begin / size) * parts + of] = {half ? sums[1] : sums[0], half ? products[1] : products[0]};
    }
  }

  static __device__ __forceinline__ void add_lane(float (&v)[2], int mask) {
#pragma unroll
    for (int half = 0; half < 2; ++half) v[half] += __shfl_xor_sync(0xffffffffu, v[half], mask);
  }
};

struct Params {
  convolution90::Vjp vjp;
  int silu;
};

// dx from dy as Base does, and the sums. Of `norm` what p does not have is given.
template <class Base, class T>
ARCH_FN void vjp(T* dx, const float* bias, const typename Base::Operands& raw, Norm<T> norm, const Params& p) {
  using P = Summed<Base, T>;
  norm.dx = dx;
  norm.channels = p.vjp.all.inputs;
  norm.groups = p.vjp.groups;
  norm.silu = p.silu;
  convolution90::vjp<P, false>(dx, nullptr, bias, {raw, norm, convolution90::tiles_of_phase<P>(p.vjp.all)}, p.vjp);
}

}  // namespace halo
