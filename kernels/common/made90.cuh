// Convolutions as those of halo90.cuh of an image that is made where it has arrived: three warps of the copying
// warpgroup put it in the place of each box, rounded as a launch stores it. The zeros beyond the edges stay: they are
// around what is made.
#pragma once
#include "halo90.cuh"
#include "vector.cuh"

namespace halo {

// The pieces of a box that a helper makes: in each round EACH, which lie ROWS below those of the round before. Those of a
// column beyond the edges are told to be below the image.
struct Pieces {
  static constexpr int ACROSS = 8, DOWN = 32 * HELPERS / ACROSS, EACH = 3;  // ACROSS: pieces of a pixel
  static constexpr int ROWS = EACH * DOWN / WIDTH, ROUNDS = HEIGHT / ROWS;
  static_assert(EACH * DOWN == ROWS * WIDTH && ROUNDS * ROWS == HEIGHT, "every thread has as many");
  int height, width, channels;  // of the image
  int sample, channel;          // channel: the first one
  int row[EACH], col[EACH];     // in the first round

  template <class Grid>
  __device__ __forceinline__ Pieces(const Grid& grid, int channels_, int sample_, int first_row, int first_col)
      : height(grid.height), width(grid.width), channels(channels_), sample(sample_), channel(piece() * tile::PIECE) {
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      col[i] = first_col + pixel(i, 0) % WIDTH;
      const bool inside = static_cast<u32>(col[i]) < static_cast<u32>(width);  // huge when negative
      row[i] = inside ? first_row + pixel(i, 0) / WIDTH : height;
    }
  }

  __device__ __forceinline__ int piece() const { return helper() % ACROSS; }
  __device__ __forceinline__ int pixel(int i, int round) const {
    return helper() / ACROSS + (round * EACH + i) * DOWN;
  }
  __device__ __forceinline__ bool has_channels() const { return channel < channels; }
  __device__ __forceinline__ bool inside(int i, int round) const {
    return has_channels() && static_cast<u32>(row[i] + round * ROWS) < static_cast<u32>(height);
  }
  // The number of one of the first round among the image's, how many of these are from round to round, and the first
  // channel in what there is by the sample and channel.
  __device__ __forceinline__ int number(int i) const {
    return ((sample * height + row[i]) * width + col[i]) * (channels / tile::PIECE) + channel / tile::PIECE;
  }
  __device__ __forceinline__ int pitch() const { return ROWS * width * (channels / tile::PIECE); }
  __device__ __forceinline__ size_t of_sample() const { return static_cast<size_t>(sample) * channels + channel; }
};

// Made by Maker: Base reads what it makes.
template <class Base_, template <class> class Maker, class T> struct Made : Base_ {
  using Base = Base_;
  using S = typename Base::S;
  using Image = typename Base::Image;
  using Registers = typename Maker<T>::Registers;
  struct Operands {
    patches::Operands raw;
    typename Maker<T>::Operands more;
  };
  static constexpr int COPIERS = 32 * (1 + HELPERS);
  static constexpr int SIZE = Base::SIZE + 16 * Image::STAGES;
  static_assert(Pieces::ACROSS == S::PIECES, "a box has pixels of as many");
  typename Maker<T>::Operands more;

  __device__ __forceinline__ Made(unsigned char* smem, const Operands& from)
      : Base(smem, from.raw), more(from.more) {
    this->ready = this->image.start + Image::SIZE;
  }

  __device__ __forceinline__ void init() const {
    for (int i = 0; i < Image::STAGES; ++i) arch::mbar_init(this->ready + 16 * i, HELPERS);
    Base::init();
  }

  // The first warp asks for the steps of a tile, the others make the image.
  template <class Grid> __device__ __forceinline__ void copy(const patches::Tile<Grid>& tile) {
    if (helper() == ASKING) this->ask(tile);
    if (helper() >= 0) make(tile, [](int, int) {});
  }

  template <class Grid, class Then> __device__ __forceinline__ void make(const patches::Tile<Grid>& tile, Then then) {
    DYN_SMEM(smem);
    const auto& [work, patch, col] = tile;
    const auto [y, x] = Base::corner(tile);
    const int boxes = work.template steps_of_tap<S>();
    Pieces of(work.grid, work.channels, work.grid.sample(patch), y, x);
    for (int box = 0; box < boxes; ++box) {
      Maker<T> maker(more, of);
      this->image.await(this->step);
      unsigned char* const stage = smem + Base::IMAGE_AT + (this->image.stage(this->step) - this->image.start);
#pragma unroll 1
      for (int round = 0; round < Pieces::ROUNDS; ++round) {
        const auto at = [&](int i) {
          return reinterpret_cast<Piece*>(stage + S::along_depth(of.pixel(i, round), of.piece()));
        };
        Piece pieces[Pieces::EACH];
#pragma unroll
        for (int i = 0; i < Pieces::EACH; ++i) pieces[i] = *at(i);
        maker(pieces, of, round);
#pragma unroll
        for (int i = 0; i < Pieces::EACH; ++i) {
          if (of.inside(i, round)) *at(i) = pieces[i];
        }
      }
      arch::fence_proxy_async();  // the next box is written after this
      ring90::announce(this->ready + this->step % Image::STAGES * 16);
      ++this->step;
      of.channel += S::DEPTH;
      then(box, boxes);
    }
  }
};

}  // namespace halo
