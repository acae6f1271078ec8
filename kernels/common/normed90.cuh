// Convolutions as those of halo90.cuh of an image that is yet to be normalised: y = silu(x scale + shift), by the sample
// and channel.
//
// Three warps of the copying warpgroup put y in the place of x as soon as a box has arrived, rounded as a norm stores
// it. The zeros beyond the edges stay: they are around y.
#pragma once
#include "halo90.cuh"
#include "math.cuh"
#include "vector.cuh"

namespace halo {

// Of images that are as large as the result.
template <class T> struct Normed : Boxes<false, T> {
  using Base = Boxes<false, T>;
  using S = typename Base::S;
  using Image = typename Base::Image;
  using Registers = patches::Registers<88, 208>;
  struct Operands {
    patches::Operands raw;
    const float *scale, *shift;  // (samples, channels)
  };
  static constexpr int COPIERS = 128, NORMERS = 96;
  static constexpr int SIZE = Base::SIZE + 16 * Image::STAGES;
  const float *scale, *shift;
  unsigned char* start;  // of the image's stages

  __device__ __forceinline__ Normed(unsigned char* smem, const Operands& from)
      : Base(smem, from.raw), scale(from.scale), shift(from.shift), start(smem + Base::IMAGE_AT) {
    this->ready = this->image.start + Image::SIZE;
  }

  __device__ __forceinline__ void init() const {
    for (int i = 0; i < Image::STAGES; ++i) arch::mbar_init(this->ready + 16 * i, NORMERS / 32);
    Base::init();
  }

  // The first warp asks for the steps of a tile, the others normalise the image.
  template <class Grid> __device__ __forceinline__ void copy(const patches::Tile<Grid>& tile) {
    const int thread = static_cast<int>(threadIdx.x) - patches::MULTIPLIERS;
    if (thread == 0) Base::copy(tile);
    if (thread >= 32) normalise(tile, thread - 32);
  }

 private:
  template <class Grid> __device__ __forceinline__ void normalise(const patches::Tile<Grid>& tile, int thread) {
    constexpr int PIECE = tile::PIECE, DOWN = NORMERS / S::PIECES, AT_ONCE = 3;
    static_assert(HEIGHT * WIDTH % (AT_ONCE * DOWN) == 0, "every thread has as many pieces");
    const auto& [work, patch, col] = tile;
    const auto [y, x] = Base::corner(tile);
    const int piece = thread % S::PIECES;
    const size_t of_sample = static_cast<size_t>(work.grid.sample(patch)) * work.channels;
    for (int channel = piece * PIECE; channel - piece * PIECE < work.channels; channel += S::DEPTH) {
      float s[PIECE] = {}, t[PIECE] = {};
      if (channel < work.channels) {
        vec::load(s, scale + of_sample + channel);
        vec::load(t, shift + of_sample + channel);
      }
      this->image.await(this->step);
      unsigned char* const stage = start + (this->image.stage(this->step) - this->image.start);
      for (int i = thread / S::PIECES; i < HEIGHT * WIDTH; i += AT_ONCE * DOWN) {
        float v[AT_ONCE][PIECE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
          vec::load(v[k], reinterpret_cast<const T*>(stage + S::along_depth(i + k * DOWN, piece)));
#pragma unroll
          for (int c = 0; c < PIECE; ++c) v[k][c] = math::fast_silu(v[k][c] * s[c] + t[c]);
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
          const int pixel = i + k * DOWN;
          const u32 row = y + pixel / WIDTH, of_row = x + pixel % WIDTH;  // huge when negative
          const bool inside = row < static_cast<u32>(work.grid.height) && of_row < static_cast<u32>(work.grid.width);
          if (inside) vec::store(reinterpret_cast<T*>(stage + S::along_depth(pixel, piece)), v[k]);
        }
      }
      arch::fence_proxy_async();  // the next box is written after this
      ring90::announce(this->ready + this->step % Image::STAGES * 16);
      ++this->step;
    }
  }
};

}  // namespace halo
