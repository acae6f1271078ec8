// Convolutions by TMA and wgmma (sm_90a) that copy the image once for all taps.
//
// A tile's lines are two patches, one below the other: 16 x 16 pixels of one sample. With the pixels around them that
// taps reach, they are one box of the image (zeros beyond its edges), which a step of channels brings once; the weights
// of each tap come through a ring of their own. A tap's rows begin amid a swizzle's period, where descriptors cannot
// point; so a warp reads them by ldmatrix, whose lanes have addresses of their own, and wgmma takes them from registers,
// half a step of a tap at a time: while one half is multiplied, the next one is read.
//
// Bytes into shared memory for 256 x 128 outputs, 64 channels and one of nine taps: 16,384 of weights and 4,608 of the
// image; Boxes of 128 x 256 take 49,152 for as many products.
#pragma once
#include "patches90.cuh"

namespace halo {

static constexpr int PATCHES = 2, REACH = 2;  // taps on an axis less one, at most
static constexpr int HEIGHT = PATCHES * patches::HEIGHT + REACH, WIDTH = patches::WIDTH + REACH;  // of a box
static constexpr int HELPERS = 3;  // warps of the copying warpgroup, beside the one that asks for copies

// A helper's number among their threads; of the thread that asks it is ASKING.
static constexpr int ASKING = -32;
ARCH_FN int helper() { return static_cast<int>(threadIdx.x) - patches::MULTIPLIERS - 32; }

// Values two by two: in half as many registers.
using Piece = Pack<u32, tile::PIECE / 2>;
template <class T> ARCH_FN float value(const Piece& of, int i) {
  return i % 2 ? arch::high2<T>(of.v[i / 2]) : arch::low2<T>(of.v[i / 2]);
}

// As patches::Boxes. The image comes in boxes of HEIGHT x WIDTH pixels.
template <bool ALONG_DEPTH, class T> struct Boxes {
  using S = warpgroup::Shape<128>;  // of one patch
  using Registers = patches::Registers<40, 232>;
  static constexpr int COPIERS = 1;
  static constexpr int PATCHES = halo::PATCHES;
  static constexpr int BOX_BYTES = HEIGHT * WIDTH * S::ROW_BYTES, WEIGHT_BYTES = S::COLS * S::ROW_BYTES;
  using Image = ring90::Ring<2, (BOX_BYTES + 1023) / 1024 * 1024>;
  using Weights = ring90::Ring<7, WEIGHT_BYTES>;
  using Sums = float[PATCHES][S::I][S::J][4];
  using Operands = patches::Operands;
  static constexpr int IMAGE_AT = (Weights::SIZE + 1023) / 1024 * 1024, SIZE = IMAGE_AT + Image::SIZE;
  static constexpr int PATCH_BYTES = patches::HEIGHT * WIDTH * S::ROW_BYTES;  // from a patch to the one below it
  static_assert(PATCH_BYTES % S::ATOM_BYTES == 0, "both are swizzled alike");
  Weights weights;
  Image image;
  u32 ready;  // the barriers of the image's stages at which multipliers wait
  Operands from;
  int tap = 0, step = 0;  // the numbers of this thread's next ones

  __device__ __forceinline__ Boxes(unsigned char* smem, const Operands& from_)
      : weights{arch::smem_u32(smem)}, image{weights.start + IMAGE_AT}, ready(image.full(0)), from(from_) {}

  // By one thread, before a __syncthreads.
  __device__ __forceinline__ void init() const {
    weights.init(1, patches::MULTIPLIERS / 32);
    image.init(1, patches::MULTIPLIERS / 32);
  }

  // The first pixel of a tile's box.
  struct Corner {
    int y, x;
  };
  template <class Grid> static __device__ __forceinline__ Corner corner(const patches::Tile<Grid>& tile) {
    const auto& [work, patch, col] = tile;
    const int back = work.direction < 0;
    return {work.grid.row(patch) + work.row - back * (work.taps.rows - 1),
            work.grid.col(patch) + work.col - back * (work.taps.cols - 1)};
  }

  template <class Grid> __device__ __forceinline__ void copy(const patches::Tile<Grid>& tile) { ask(tile); }

  // Asks for the steps of a tile.
  template <class Grid> __device__ __forceinline__ void ask(const patches::Tile<Grid>& tile) {
    const auto& [work, patch, col] = tile;
    const auto [y, x] = corner(tile);
    const int sample = work.grid.sample(patch);
    for (int channel = 0; channel < work.channels; channel += S::DEPTH, ++step) {
      image.await_empty(step);
      arch::mbar_arrive_expect_tx(image.full(step), BOX_BYTES);
      arch::tma_load_4d(image.stage(step), from.image, image.full(step), channel, x, y, sample);
      for (int row = 0; row < work.taps.rows; ++row) {
        for (int of_row = 0; of_row < work.taps.cols; ++of_row, ++tap) {
          const u32 full = weights.full(tap);
          weights.await_empty(tap);
          arch::mbar_arrive_expect_tx(full, WEIGHT_BYTES);
          patches::copy_weights<S, ALONG_DEPTH>(weights.stage(tap), from.w, full, channel, col,
                                                work.taps.number(row, of_row));
        }
      }
    }
  }

  // acc = a tile's products, whose steps are then released.
  template <class Grid> __device__ __forceinline__ void multiply(Sums& acc, const patches::Tile<Grid>& tile) {
    const auto& [work, patch, col] = tile;
    const int last_row = work.taps.rows - 1, last_col = work.taps.cols - 1;
    const int taps = work.template steps<S>();
    int row = 0, of_row = 0;  // of the tap
    u32 early[HALF * PATCHES][4], late[HALF * PATCHES][4];  // the halves of a step
#pragma unroll
    for (int i = 0; i < PATCHES; ++i) tile::clear<S>(acc[i]);
    await_image();
    u32 rows = rows_of(work.direction, row, of_row, last_row, last_col);
    read(early, rows, 0);
    for (int i = 0; i < taps; ++i, ++tap) {
      weights.await(tap);
      multiply_half(acc, early, 0);
      arch::wgmma_wait<1>();  // the late half of the tap before is no longer in use
      if (i > 0) weights.release(tap - 1);
      read(late, rows, HALF);
      const bool ends = row == last_row && of_row == last_col;  // the step
      multiply_half(acc, late, HALF);
      if (ends) {
        arch::fence_proxy_async();  // what ldmatrix has read is written by the copy engine after this
        image.release(step++);
      }
      arch::wgmma_wait<1>();  // nor is the early one
      if (i + 1 == taps) break;
      if (ends) await_image();
      row = ends ? 0 : row + (of_row == last_col);
      of_row = of_row == last_col ? 0 : of_row + 1;
      rows = rows_of(work.direction, row, of_row, last_row, last_col);
      read(early, rows, 0);
    }
    arch::wgmma_wait<0>();
    weights.release(tap++);
  }

  // By the helpers, where there are any: `then(i, n)` follows the i-th of n things that are made of a tile's boxes.
  template <class Grid, class Then> __device__ __forceinline__ void make(const patches::Tile<Grid>&, Then then) {
    then(0, 1);
  }

  __device__ __forceinline__ void stored() {}
  template <class Grid> __device__ __forceinline__ void ended(const patches::Tile<Grid>&) {}

  __device__ __forceinline__ void await_image() const {
    arch::mbar_wait(ready + step % Image::STAGES * 16, step / Image::STAGES % 2);
  }

 private:
  static constexpr int HALF = S::DEPTH / 16 / 2;  // sixteens of a half

  // Where this lane's row of the upper patch is at a tap, the piece that ldmatrix wants of it first.
  __device__ __forceinline__ u32 rows_of(int direction, int row, int of_row, int last_row, int last_col) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const bool back = direction < 0;
    const int y = warp + (back ? last_row - row : row), x = lane % 16 + (back ? last_col - of_row : of_row);
    return image.stage(step) + S::along_depth(y * WIDTH + x, lane / 16);
  }

  // a = this warp's rows of both patches, from the sixteen k on.
  static __device__ __forceinline__ void read(u32 (&a)[HALF * PATCHES][4], u32 rows, int k) {
    u32 at[HALF * PATCHES];
#pragma unroll
    for (int i = 0; i < HALF * PATCHES; ++i) {
      at[i] = (rows ^ (k + i / PATCHES) * 32) + i % PATCHES * PATCH_BYTES;
    }
    arch::ldmatrix(a, at);
  }

  // acc += half a step, from the sixteen k on: a, and the weights of the tap.
  __device__ __forceinline__ void multiply_half(Sums& acc, const u32 (&a)[HALF * PATCHES][4], int k) const {
    constexpr int EACH = ALONG_DEPTH ? 32 : 2 * S::ATOM_BYTES;  // bytes of sixteen along the depth
    const u64 b = arch::wgmma_descriptor(weights.stage(tap), ALONG_DEPTH ? 16 : S::BLOCK_BYTES, S::ATOM_BYTES);
    arch::wgmma_fence();  // a was read
#pragma unroll
    for (int i = 0; i < HALF * PATCHES; ++i) {
      auto& d = reinterpret_cast<float(&)[4 * S::J]>(acc[i % PATCHES]);
      arch::wgmma_registers<T, !ALONG_DEPTH>(d, a[i], b + (k + i / PATCHES) * EACH / 16, 1);
    }
    arch::wgmma_commit();
  }
};

}  // namespace halo
