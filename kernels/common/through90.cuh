// Backward convolutions as those of halo90.cuh of a cotangent that has yet to go through the norm behind them and its
// SiLU, see made90.cuh: d = du scale + x slope + offset, du = dy times the slope of SiLU at x scale + shift, by the sample
// and channel, where x is what the norm was given.
//
// x is asked for before a box of dy is waited for, and from then on a round ahead of what is made: registers for more are
// not there.
#pragma once
#include "made90.cuh"
#include "math.cuh"

namespace halo {

// Makes d of dy.
template <class T> struct Backward {
  using Registers = patches::Registers<120, 192>;
  struct Operands {
    const T* x;                                   // (samples, height, width, channels)
    const float *scale, *shift, *slope, *offset;  // (samples, channels)
  };
  float scale[tile::PIECE] = {}, shift[tile::PIECE] = {}, slope[tile::PIECE] = {}, offset[tile::PIECE] = {};
  Piece x[Pieces::EACH] = {};  // on their way
  const Piece* image;          // all of x
  int next[Pieces::EACH];      // of these the next ones to be asked for

  __device__ __forceinline__ Backward(const Operands& from, const Pieces& of)
      : image(reinterpret_cast<const Piece*>(from.x)) {
#pragma unroll
    for (int i = 0; i < Pieces::EACH; ++i) next[i] = of.number(i);
    ask(of, 0);
    if (!of.has_channels()) return;
    vec::load(scale, from.scale + of.of_sample());
    vec::load(shift, from.shift + of.of_sample());
    vec::load(slope, from.slope + of.of_sample());
    vec::load(offset, from.offset + of.of_sample());
  }

  // Of a round.
  __device__ __forceinline__ void operator()(Piece (&pieces)[Pieces::EACH], const Pieces& of, int round) {
#pragma unroll
    for (int i = 0; i < Pieces::EACH; ++i) {
#pragma unroll
      for (int c = 0; c < tile::PIECE; c += 2) {
        pieces[i].v[c / 2] = arch::pack2<T>(made(pieces[i], x[i], c), made(pieces[i], x[i], c + 1));
      }
    }
    ask(of, round + 1);
  }

 private:
  // d of a channel.
  __device__ __forceinline__ float made(const Piece& dy, const Piece& of_x, int c) const {
    const float v = value<T>(of_x, c);
    const float du = value<T>(dy, c) * math::fast_silu_slope(v * scale[c] + shift[c]);
    return du * scale[c] + (v * slope[c] + offset[c]);
  }

  // The pieces of a round.
  __device__ __forceinline__ void ask(const Pieces& of, int round) {
#pragma unroll
    for (int i = 0; i < Pieces::EACH; ++i) {
      const bool inside = round < Pieces::ROUNDS && of.inside(i, round);
      if (inside) x[i] = image[next[i]];
      next[i] += of.pitch();
    }
  }
};

// Of images that are as large as the result.
template <class T> using Through = Made<Boxes<true, T>, Backward, T>;

}  // namespace halo
