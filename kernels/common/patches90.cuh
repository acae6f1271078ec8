// Convolutions and linear maps by TMA and wgmma (sm_90a): the copy engine takes boxes of the image, so no thread
// computes an address.
//
// A tile's lines are a patch of pixels, 8 x 16 of one sample. What they meet at a tap is such a patch too, moved by the
// tap: one box of the image, with zeros where it reaches beyond the edges, as wide in channels as a step is deep. Blocks
// stay: each goes from tile to tile, and its one copying thread is a ring of steps ahead of the two warpgroups that
// multiply (warpgroup.cuh), so the next tile's steps arrive while a tile is stored. Patches must cover the pixels of
// the result exactly; channels are multiples of 8. A matrix is an image of one row, whose patches are 128 of its rows.
#pragma once
#include "phases.cuh"
#include "ring90.cuh"
#include "warpgroup.cuh"

namespace patches {

static constexpr int HEIGHT = 8, WIDTH = 16;  // of a patch
static constexpr int MULTIPLIERS = 256, THREADS = MULTIPLIERS + 128;

// Who has how many registers; all are launched with 168.
template <int OF_COPIER, int OF_MULTIPLIER> struct Registers {
  static constexpr int COPIER = OF_COPIER, MULTIPLIER = OF_MULTIPLIER;
  static_assert(COPIER + 2 * MULTIPLIER <= 3 * 168, "they only change hands");
};

// The pixels [samples, height, width] of a result, or of one phase of it, patch by patch: line i of the product is pixel
// i % 128 of patch i / 128.
struct Grid {
  int height, width;

  __device__ __forceinline__ int across() const { return width / WIDTH; }
  __device__ __forceinline__ int of_sample() const { return height / HEIGHT * across(); }
  __device__ __forceinline__ int sample(int patch) const { return patch / of_sample(); }
  __device__ __forceinline__ int row(int patch) const { return patch % of_sample() / across() * HEIGHT; }
  __device__ __forceinline__ int col(int patch) const { return patch % across() * WIDTH; }

  // The first patch of a stack of N, one below the other; and the one so many below another.
  template <int N> __device__ __forceinline__ int first(int stack) const {
    return stack + (N - 1) * (stack / across() * across());
  }
  __device__ __forceinline__ int below(int patch, int i) const { return patch + i * across(); }

  // The pixel that a line is, counted row by row.
  __device__ __forceinline__ int pixel(int line) const {
    const int patch = line / (HEIGHT * WIDTH), in_patch = line % (HEIGHT * WIDTH);
    const int y = row(patch) + in_patch / WIDTH, x = col(patch) + in_patch % WIDTH;
    return (sample(patch) * height + y) * width + x;
  }
};

// The rows of a matrix; the last patch may reach beyond them.
struct Rows {
  __device__ __forceinline__ int sample(int) const { return 0; }
  __device__ __forceinline__ int row(int) const { return 0; }
  __device__ __forceinline__ int col(int patch) const { return patch * (HEIGHT * WIDTH); }
};

// Where a line goes: to `to` of its pixel.
template <class To> struct Place {
  Grid grid;
  To to;

  __device__ __forceinline__ size_t operator()(int line) const { return to(grid.pixel(line)); }
};

// What the tiles of a result, or of one phase of it, multiply. Pixel p meets pixel p + offset + direction * t of the
// image at tap t of the `taps`, on each axis.
template <class Grid> struct Work {
  Grid grid;
  taps::Taps taps;
  int row, col, direction;  // row, col: the offsets
  int channels;             // of the image: the depth of a tap

  template <class S> __device__ __forceinline__ int steps_of_tap() const { return (channels + S::DEPTH - 1) / S::DEPTH; }
  template <class S> __device__ __forceinline__ int steps() const { return taps.rows * taps.cols * steps_of_tap<S>(); }
};

// A tile: the first patch of the work, and its first column.
template <class Grid> struct Tile {
  Work<Grid> work;
  int patch, col;
};

// The image, in boxes as wide in channels as a step is deep, and the weights: in boxes of 64 by the columns of a tile
// where they lie along the depth, else of 64 by 64.
struct Operands {
  const TensorMap *image, *w;
};

// Asks for the weights of a step.
template <class S, bool ALONG_DEPTH>
ARCH_FN void copy_weights(u32 to, const TensorMap* w, u32 full, int channel, int col, int tap) {
  if constexpr (ALONG_DEPTH) {
    arch::tma_load_3d(to, w, full, channel, col, tap);
  } else {
#pragma unroll
    for (int i = 0; i < S::COLS / 64; ++i) {
      arch::tma_load_3d(to + i * S::BLOCK_BYTES, w, full, col + 64 * i, channel, tap);
    }
  }
}

// Tiles of one patch and COLS_ channels. A step is a box of the image, moved by its tap, and weights.
template <int COLS_, bool ALONG_DEPTH, class T> struct Boxes {
  using S = warpgroup::Shape<COLS_>;  // but for the number of steps in shared memory
  using Registers = patches::Registers<40, 232>;
  static constexpr int COPIERS = 1;  // threads of the copying warpgroup that have something to do
  static constexpr int PATCHES = 1, STAGES = COLS_ == 256 ? 4 : 6;
  using Ring = ring90::Ring<STAGES, S::STAGE_BYTES>;
  using Sums = float[PATCHES][S::I][S::J][4];
  using Operands = patches::Operands;
  static_assert(S::ROWS == HEIGHT * WIDTH, "a tile's lines are a patch");
  static constexpr int SIZE = Ring::SIZE;  // of shared memory
  Ring ring;
  Operands from;
  int step = 0;  // the number of this thread's next one

  __device__ __forceinline__ Boxes(unsigned char* smem, const Operands& from_)
      : ring{arch::smem_u32(smem)}, from(from_) {}

  // By one thread, before a __syncthreads.
  __device__ __forceinline__ void init() const { ring.init(1, MULTIPLIERS / 32); }

  // Asks for the steps of a tile.
  template <class Grid> __device__ __forceinline__ void copy(const Tile<Grid>& tile) {
    const auto& [work, patch, col] = tile;
    const int sample = work.grid.sample(patch);
    for (int tap = 0; tap < work.taps.rows * work.taps.cols; ++tap) {
      const int tap_row = tap / work.taps.cols, tap_col = tap % work.taps.cols;
      const int y = work.grid.row(patch) + work.row + work.direction * tap_row;
      const int x = work.grid.col(patch) + work.col + work.direction * tap_col;
      for (int channel = 0; channel < work.channels; channel += S::DEPTH, ++step) {
        const u32 a = ring.stage(step), full = ring.full(step);
        ring.await_empty(step);
        arch::mbar_arrive_expect_tx(full, S::STAGE_BYTES);
        arch::tma_load_4d(a, from.image, full, channel, x, y, sample);
        copy_weights<S, ALONG_DEPTH>(a + S::A_BYTES, from.w, full, channel, col, work.taps.number(tap_row, tap_col));
      }
    }
  }

  // acc = a tile's products, whose steps are then released.
  template <class Grid> __device__ __forceinline__ void multiply(Sums& acc, const Tile<Grid>& tile) {
    auto& d = reinterpret_cast<float(&)[4 * S::J]>(acc);
    const u32 rows = threadIdx.x / 128 * 64 * S::ROW_BYTES;  // of a, before this warpgroup's
    const int steps = tile.work.template steps<S>();
    tile::clear<S>(acc[0]);
    for (int i = 0; i < steps; ++i, ++step) {
      ring.await(step);
      arch::wgmma_fence();
      warpgroup::multiply_step<T, S, ALONG_DEPTH>(d, ring.stage(step) + rows, ring.stage(step) + S::A_BYTES);
      arch::wgmma_commit();
      if (i == 0) continue;
      arch::wgmma_wait<1>();
      ring.release(step - 1);
    }
    arch::wgmma_wait<0>();
    if (steps > 0) ring.release(step - 1);  // a phase that no tap reaches has none
  }

  // Is told that a tile has been stored, and which was the block's last one.
  __device__ __forceinline__ void stored() {}
  template <class Grid> __device__ __forceinline__ void ended(const Tile<Grid>&) {}
};

// All tiles that are this block's, of `tiles`: tile(t) is what the t-th is, store(t, acc, shared) stores it. P: how they
// are multiplied, as Boxes.
template <class P, class TileOf, class Store>
ARCH_FN void run(const typename P::Operands& from, int tiles, TileOf tile, Store store) {
  DYN_SMEM(smem);
  P product(smem, from);
  if (threadIdx.x == 0) product.init();
  __syncthreads();  // the barriers are initialised
  if (threadIdx.x < MULTIPLIERS) {
    arch::setmaxnreg_inc<P::Registers::MULTIPLIER>();
    int t = blockIdx.x;
    for (; t < tiles; t += gridDim.x) {
      typename P::Sums acc;
      product.multiply(acc, tile(t));
      store(t, acc, smem + P::SIZE);
      product.stored();
    }
    product.ended(tile(t - static_cast<int>(gridDim.x)));
  } else {
    arch::setmaxnreg_dec<P::Registers::COPIER>();
    if (threadIdx.x >= MULTIPLIERS + P::COPIERS) return;
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) product.copy(tile(t));
  }
}

// A product of matrices: `a` (rows, depth) in boxes of 128 rows, `b` as weights.
template <int COLS, bool ALONG_DEPTH, class T, class Out>
ARCH_FN void product(const Out& out, const TensorMap* a, const TensorMap* b, int depth) {
  using P = Boxes<COLS, ALONG_DEPTH, T>;
  using S = typename P::S;
  const int down = (out.rows + S::ROWS - 1) / S::ROWS, across = (out.cols + COLS - 1) / COLS;
  const Work<Rows> work{{}, taps::Taps::all(1), 0, 0, 1, depth};
  const auto part = [&](int t) { return Tile<Rows>{work, t / across, t % across * COLS}; };
  run<P>({a, b}, down * across, part, [&](int t, const typename P::Sums& acc, unsigned char* shared) {
    tile::store_apart<S>(out, acc[0], part(t).patch * S::ROWS, part(t).col, shared);
  });
}

}  // namespace patches
