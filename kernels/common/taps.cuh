// Convolutions as matrix products (tile.cuh): a is gathered from the image on its way to shared memory.
//
// The depth runs over taps of a k x k kernel, and over the channels within each tap; a block goes through a chunk of
// it.
#pragma once
#include "tile.cuh"

namespace taps {

// The taps that the depth runs over: rows x cols of them, every `step`-th of a k x k kernel from (row, col) on.
struct Taps {
  int k, rows, cols, step, row, col;

  static __device__ __forceinline__ Taps all(int k) { return {k, k, k, 1, 0, 0}; }

  // Which tap of the kernel one of these is.
  __device__ __forceinline__ int number(int tap_row, int tap_col) const {
    return (row + tap_row * step) * k + col + tap_col * step;
  }
};

// Where on the depth this thread's pieces are: the same piece of each row, so the same tap and channel.
template <class S> struct Walk {
  int cols, channels;
  int row, col, channel;  // of the tap, among those that the depth runs over; its first channel of this step
  int left;               // of the chunk, from the piece on

  __device__ __forceinline__ Walk(const Taps& taps, int channels_, chunks::Chunk chunk)
      : cols(taps.cols), channels(channels_), row(0), col(0) {
    const int before = threadIdx.x % S::PIECES * tile::PIECE;
    channel = chunk.first + before;
    left = chunk.depth - before;
    wrap();
  }

  __device__ __forceinline__ void advance() {
    channel += S::DEPTH;
    left -= S::DEPTH;
    wrap();
  }

  __device__ __forceinline__ void wrap() {
    while (channel >= channels) {  // on to the next tap
      channel -= channels;
      if (++col == cols) {
        col = 0;
        ++row;
      }
    }
  }

  __device__ __forceinline__ bool inside() const { return left > 0; }
};

// The side of a convolution that is gathered from: [samples, height, width, channels].
template <class T> struct Image {
  const T* start;
  int height, width, channels;
};

// Pixels [samples, height, width] of the other side, `count` of them: the lines of the product. On each axis pixel p
// meets pixel p * step + offset + direction * tap of the image.
struct Lines {
  int count, height, width, step, row, col;  // row, col: the offsets
};

// a: the pixels that consecutive lines meet, where those are inside the image.
template <class T, class S, int DIRECTION> struct Pixels {
  static constexpr bool ALONG_DEPTH = true;
  static constexpr int EACH = S::ROWS * S::PIECES / S::THREADS;
  Image<T> image;
  Walk<S> walk;
  const T* sample[EACH];
  int row[EACH], col[EACH];  // of the first tap

  __device__ __forceinline__ Pixels(Image<T> image_, const Taps& taps, const Lines& lines, int first,
                                    chunks::Chunk chunk)
      : image(image_), walk(taps, image_.channels, chunk) {
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const int line = first + threadIdx.x / S::PIECES + i * (S::THREADS / S::PIECES);
      const int pixel = line % (lines.height * lines.width), n = line / (lines.height * lines.width);
      sample[i] = image.start + static_cast<size_t>(n) * image.height * image.width * image.channels;
      row[i] = line < lines.count ? pixel / lines.width * lines.step + lines.row : NOWHERE;
      col[i] = pixel % lines.width * lines.step + lines.col;
    }
  }

  __device__ __forceinline__ void copy(u32 to) {
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const u32 at_row = row[i] + DIRECTION * walk.row, at_col = col[i] + DIRECTION * walk.col;  // huge when negative
      const bool inside =
          walk.inside() && at_row < static_cast<u32>(image.height) && at_col < static_cast<u32>(image.width);
      const size_t pixel = static_cast<size_t>(at_row) * image.width + at_col;
      const T* const piece = inside ? sample[i] + pixel * image.channels + walk.channel : image.start;
      const int line = threadIdx.x / S::PIECES + i * (S::THREADS / S::PIECES);
      arch::cp_async16(to + S::along_depth(line, threadIdx.x % S::PIECES), piece, inside);
    }
    walk.advance();
  }

 private:
  static constexpr int NOWHERE = -(1 << 30);
};

// b of w^T: consecutive channels of w: [k, k, channels, depth], whose other channels run along the depth.
template <class T, class S> struct Weights {
  static constexpr bool ALONG_DEPTH = true;
  const T* w;
  Taps taps;
  Walk<S> walk;
  int channels, channel;  // the first one of this thread

  __device__ __forceinline__ Weights(const T* w_, const Taps& taps_, int channels_, int depth, int first,
                                     chunks::Chunk chunk)
      : w(w_), taps(taps_), walk(taps_, depth, chunk), channels(channels_), channel(first + threadIdx.x / S::PIECES) {}

  __device__ __forceinline__ void copy(u32 to) {
    const size_t tap = static_cast<size_t>(taps.number(walk.row, walk.col)) * channels;
#pragma unroll
    for (int i = 0; i < S::COLS; i += S::THREADS / S::PIECES) {
      const bool inside = walk.inside() && channel + i < channels;
      const T* const piece = inside ? w + (tap + channel + i) * walk.channels + walk.channel : w;
      const int line = threadIdx.x / S::PIECES + i;
      arch::cp_async16(to + S::along_depth(line, threadIdx.x % S::PIECES), piece, inside);
    }
    walk.advance();
  }
};

// a of a transposed product over pixels: consecutive ones of the taps and channels [k, k, channels] of the image, the
// depth being the pixels of the other side. Pixel p meets p * stride + tap - before on each axis.
template <class T, class S> struct TransposedPixels {
  static constexpr bool ALONG_DEPTH = false;
  static constexpr int ACROSS = S::ROWS / tile::PIECE, DOWN = S::THREADS / ACROSS, EACH = S::DEPTH / DOWN;
  Image<T> image;
  int height, width, stride;        // of the other side
  int tap_row, tap_col, channel;    // of this thread's piece; the tap less `before`
  int left;                         // pixels of the depth from this thread's first on
  int sample[EACH], row[EACH], col[EACH];

  // A chunk of the pixels of the other side, taps and channels from `first` on.
  __device__ __forceinline__ TransposedPixels(Image<T> image_, int k, int stride_, int before, int height_, int width_,
                                              chunks::Chunk chunk, int first)
      : image(image_), height(height_), width(width_), stride(stride_) {
    const int line = first + threadIdx.x % ACROSS * tile::PIECE, tap = line / image.channels;
    tap_row = tap / k - before;
    tap_col = tap % k - before;
    channel = line % image.channels;
    left = tap < k * k ? chunk.depth - static_cast<int>(threadIdx.x) / ACROSS : 0;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const int pixel = chunk.first + threadIdx.x / ACROSS + i * DOWN;
      sample[i] = pixel / (height * width);
      row[i] = pixel % (height * width) / width;
      col[i] = pixel % width;
    }
  }

  __device__ __forceinline__ void copy(u32 to) {
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const u32 image_row = row[i] * stride + tap_row, image_col = col[i] * stride + tap_col;  // huge when negative
      const bool inside = i * DOWN < left && image_row < static_cast<u32>(image.height) &&
                          image_col < static_cast<u32>(image.width);
      const size_t pixel = (static_cast<size_t>(sample[i]) * image.height + image_row) * image.width + image_col;
      const T* const piece = inside ? image.start + pixel * image.channels + channel : image.start;
      const u32 place = S::template along_columns<S::ROWS>(threadIdx.x / ACROSS + i * DOWN, threadIdx.x % ACROSS);
      arch::cp_async16(to + place, piece, inside);
      col[i] += S::DEPTH;
      while (col[i] >= width) {
        col[i] -= width;
        if (++row[i] == height) {
          row[i] = 0;
          ++sample[i];
        }
      }
    }
    left -= S::DEPTH;
  }
};

}  // namespace taps
