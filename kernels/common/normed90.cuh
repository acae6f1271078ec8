// Convolutions as those of halo90.cuh of an image that is yet to be normalised, see made90.cuh: u = silu(x scale +
// shift), by the sample and channel.
#pragma once
#include "made90.cuh"
#include "math.cuh"

namespace halo {

// Makes u of x.
template <class T> struct Normaliser {
  using Registers = patches::Registers<88, 208>;
  struct Operands {
    const float *scale, *shift;  // (samples, channels)
  };
  float scale[tile::PIECE] = {}, shift[tile::PIECE] = {};

  __device__ __forceinline__ Normaliser(const Operands& from, const Pieces& of) {
    if (!of.has_channels()) return;
    vec::load(scale, from.scale + of.of_sample());
    vec::load(shift, from.shift + of.of_sample());
  }

  // Of a round.
  __device__ __forceinline__ void operator()(Piece (&pieces)[Pieces::EACH], const Pieces&, int) const {
#pragma unroll
    for (Piece& piece : pieces) {
#pragma unroll
      for (int c = 0; c < tile::PIECE; c += 2) {
        piece.v[c / 2] = arch::pack2<T>(made(piece, c), made(piece, c + 1));
      }
    }
  }

 private:
  // u of a channel.
  __device__ __forceinline__ float made(const Piece& x, int c) const {
    return math::fast_silu(value<T>(x, c) * scale[c] + shift[c]);
  }
};

// Of images that are as large as the result.
template <class T> using Normed = Made<Boxes<false, T>, Normaliser, T>;

}  // namespace halo
