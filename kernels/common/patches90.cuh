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
static constexpr int COPIER_REGISTERS = 40, MULTIPLIER_REGISTERS = 232;  // of a thread; all are launched with 168
static_assert(COPIER_REGISTERS + 2 * MULTIPLIER_REGISTERS <= 3 * 168, "they only change hands");

// A tile of 128 pixels and COLS channels, as of warpgroup.cuh but for the number of steps in shared memory.
template <int COLS> struct Shape : warpgroup::Shape<COLS> {
  static constexpr int STAGES = COLS == 256 ? 4 : 6;
  using Ring = ring90::Ring<STAGES, warpgroup::Shape<COLS>::STAGE_BYTES>;
  using Sums = float[warpgroup::Shape<COLS>::I][warpgroup::Shape<COLS>::J][4];
  static_assert(warpgroup::Shape<COLS>::ROWS == HEIGHT * WIDTH, "a tile's lines are a patch");
};

// The pixels [samples, height, width] of a result, or of one phase of it, patch by patch: line i of the product is pixel
// i % 128 of patch i / 128.
struct Grid {
  int height, width;

  __device__ __forceinline__ int of_sample() const { return height / HEIGHT * (width / WIDTH); }
  __device__ __forceinline__ int sample(int patch) const { return patch / of_sample(); }
  __device__ __forceinline__ int row(int patch) const { return patch % of_sample() / (width / WIDTH) * HEIGHT; }
  __device__ __forceinline__ int col(int patch) const { return patch % (width / WIDTH) * WIDTH; }

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

// A tile: which patch of the work, and its first column.
template <class Grid> struct Tile {
  Work<Grid> work;
  int patch, col;
};

// Asks for the steps of a tile, from number `step` of the ring on; returns the number after the last. `w`: boxes of 64
// by the columns of a tile where the weights lie along the depth, else of 64 by 64.
template <class S, bool ALONG_DEPTH, class Grid>
ARCH_FN int copy(const typename S::Ring& ring, const TensorMap* image, const TensorMap* w, const Tile<Grid>& tile,
                 int step) {
  const auto& [work, patch, col] = tile;
  const int sample = work.grid.sample(patch);
  for (int tap = 0; tap < work.taps.rows * work.taps.cols; ++tap) {
    const int tap_row = tap / work.taps.cols, tap_col = tap % work.taps.cols;
    const int y = work.grid.row(patch) + work.row + work.direction * tap_row;
    const int x = work.grid.col(patch) + work.col + work.direction * tap_col;
    const int of_w =
        (work.taps.row + tap_row * work.taps.step) * work.taps.k + work.taps.col + tap_col * work.taps.step;
    for (int channel = 0; channel < work.channels; channel += S::DEPTH, ++step) {
      const u32 a = ring.stage(step), b = a + S::A_BYTES, full = ring.full(step);
      ring.await_empty(step);
      arch::mbar_arrive_expect_tx(full, S::STAGE_BYTES);
      arch::tma_load_4d(a, image, full, channel, x, y, sample);
      if constexpr (ALONG_DEPTH) {
        arch::tma_load_3d(b, w, full, channel, col, of_w);
      } else {
#pragma unroll
        for (int i = 0; i < S::COLS / 64; ++i) {
          arch::tma_load_3d(b + i * S::BLOCK_BYTES, w, full, col + 64 * i, channel, of_w);
        }
      }
    }
  }
  return step;
}

// acc = a tile's products, of `steps` steps from number `step` of the ring on, which are then released.
template <class S, bool ALONG_DEPTH, class T>
ARCH_FN void multiply(const typename S::Ring& ring, typename S::Sums& acc, int steps, int step) {
  auto& d = reinterpret_cast<float(&)[4 * S::J]>(acc);
  const u32 rows = threadIdx.x / 128 * 64 * S::ROW_BYTES;  // of a, before this warpgroup's
  tile::clear<S>(acc);
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
  ring.release(step - 1);
}

// All tiles that are this block's, of `tiles`: tile(t) is what the t-th is, store(t, acc, shared) stores it.
template <class S, bool ALONG_DEPTH, class T, class TileOf, class Store>
ARCH_FN void run(const TensorMap* image, const TensorMap* w, int tiles, TileOf tile, Store store) {
  DYN_SMEM(smem);
  const typename S::Ring ring{arch::smem_u32(smem)};
  if (threadIdx.x == 0) ring.init(1, MULTIPLIERS / 32);
  __syncthreads();  // the barriers are initialised
  int step = 0;
  if (threadIdx.x < MULTIPLIERS) {
    arch::setmaxnreg_inc<MULTIPLIER_REGISTERS>();
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
      const int steps = tile(t).work.template steps<S>();
      typename S::Sums acc;
      multiply<S, ALONG_DEPTH, T>(ring, acc, steps, step);
      store(t, acc, smem + S::Ring::SIZE);
      step += steps;
    }
  } else {
    arch::setmaxnreg_dec<COPIER_REGISTERS>();
    if (threadIdx.x > MULTIPLIERS) return;
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
      step = copy<S, ALONG_DEPTH>(ring, image, w, tile(t), step);
    }
  }
}

// A product of matrices: `a` (rows, depth) in boxes of 128 rows, `b` as `w` above.
template <class S, bool ALONG_DEPTH, class T, class Out>
ARCH_FN void product(const Out& out, const TensorMap* a, const TensorMap* b, int depth) {
  const int down = (out.rows + S::ROWS - 1) / S::ROWS, across = (out.cols + S::COLS - 1) / S::COLS;
  const Work<Rows> work{{}, taps::Taps::all(1), 0, 0, 1, depth};
  const auto part = [&](int t) { return Tile<Rows>{work, t / across, t % across * S::COLS}; };
  run<S, ALONG_DEPTH, T>(a, b, down * across, part, [&](int t, const typename S::Sums& acc, unsigned char* shared) {
    tile::store_apart<S>(out, acc, part(t).patch * S::ROWS, part(t).col, shared);
  });
}

}  // namespace patches
