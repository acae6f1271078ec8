// Convolutions as matrix products (tile.cuh): a is gathered from the image on its way to shared memory.
//
// The depth runs over the taps of a k x k kernel, and over the channels within each tap.
#pragma once
#include "tile.cuh"

namespace taps {

// Where on the depth this thread's pieces are: the same piece of each row, so the same tap and channel.
struct Walk {
  int k, channels;
  int row, col, channel;  // of the tap; its first channel of this step

  __device__ __forceinline__ Walk(int k_, int channels_)
      : k(k_), channels(channels_), row(0), col(0), channel(threadIdx.x % tile::PIECES * tile::PIECE) {
    wrap();
  }

  __device__ __forceinline__ void advance() {
    channel += tile::DEPTH;
    wrap();
  }

  __device__ __forceinline__ void wrap() {
    while (channel >= channels) {  // on to the next tap
      channel -= channels;
      if (++col == k) {
        col = 0;
        ++row;
      }
    }
  }

  __device__ __forceinline__ bool inside() const { return row < k; }
};

// The side of a convolution that is gathered from: [samples, height, width, channels].
template <class T> struct Image {
  const T* start;
  int height, width, channels;
};

// a: the pixels that LINES consecutive pixels of the other side meet. On each axis pixel p meets
// p * step + offset + DIRECTION * tap, in units of 1 / 2^log_unit pixels, where that is a whole pixel of the image.
template <class T, int LINES, int THREADS, int DIRECTION> struct Pixels {
  static constexpr bool ALONG_DEPTH = true;
  static constexpr int EACH = LINES * tile::PIECES / THREADS;
  Image<T> image;
  Walk walk;
  int log_unit;
  const T* sample[EACH];
  int row[EACH], col[EACH];  // of tap (0, 0)

  // Lines from `first` on of all `lines`, which are the pixels [samples, height, width] of the other side.
  __device__ __forceinline__ Pixels(Image<T> image_, int k, int log_unit_, int lines, int height, int width, int step,
                                    int offset, int first)
      : image(image_), walk(k, image_.channels), log_unit(log_unit_) {
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const int line = first + threadIdx.x / tile::PIECES + i * (THREADS / tile::PIECES);
      const int pixel = line % (height * width), n = line / (height * width);
      sample[i] = image.start + static_cast<size_t>(n) * image.height * image.width * image.channels;
      row[i] = line < lines ? pixel / width * step + offset : NOWHERE;
      col[i] = pixel % width * step + offset;
    }
  }

  __device__ __forceinline__ void copy(u32 to) {
    const int part = (1 << log_unit) - 1;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const int at_row = row[i] + DIRECTION * walk.row, at_col = col[i] + DIRECTION * walk.col;
      const u32 image_row = at_row >> log_unit, image_col = at_col >> log_unit;  // huge when negative
      const bool whole = ((at_row | at_col) & part) == 0;
      const bool inside = walk.inside() && whole && image_row < static_cast<u32>(image.height) &&
                          image_col < static_cast<u32>(image.width);
      const size_t pixel = static_cast<size_t>(image_row) * image.width + image_col;
      const T* const piece = inside ? sample[i] + pixel * image.channels + walk.channel : image.start;
      const int line = threadIdx.x / tile::PIECES + i * (THREADS / tile::PIECES);
      arch::cp_async16(to + tile::along_depth(line, threadIdx.x % tile::PIECES), piece, inside);
    }
    walk.advance();
  }

 private:
  static constexpr int NOWHERE = -(1 << 30);
};

// b of w^T: COLS of the channels of w: [k, k, channels, depth], whose other channels run along the depth.
template <class T, int COLS, int THREADS> struct Weights {
  static constexpr bool ALONG_DEPTH = true;
  const T* w;
  Walk walk;
  int channels, channel;  // the first one of this thread

  __device__ __forceinline__ Weights(const T* w_, int k, int channels_, int depth, int first)
      : w(w_), walk(k, depth), channels(channels_), channel(first + threadIdx.x / tile::PIECES) {}

  __device__ __forceinline__ void copy(u32 to) {
    const size_t tap = static_cast<size_t>(walk.row * walk.k + walk.col) * channels;
#pragma unroll
    for (int i = 0; i < COLS; i += THREADS / tile::PIECES) {
      const bool inside = walk.inside() && channel + i < channels;
      const T* const piece = inside ? w + (tap + channel + i) * walk.channels + walk.channel : w;
      const int line = threadIdx.x / tile::PIECES + i;
      arch::cp_async16(to + tile::along_depth(line, threadIdx.x % tile::PIECES), piece, inside);
    }
    walk.advance();
  }
};

// a of a transposed product over pixels: COLS of the taps and channels [k, k, channels] of the image `from`, the depth
// being the pixels of the other side. Pixel p meets p * stride + tap - before on each axis.
template <class T, int COLS, int THREADS> struct TransposedPixels {
  static constexpr bool ALONG_DEPTH = false;
  static constexpr int ACROSS = COLS / tile::PIECE, DOWN = THREADS / ACROSS, EACH = tile::DEPTH / DOWN;
  Image<T> image;
  int height, width, stride;        // of the other side
  int tap_row, tap_col, channel;    // of this thread's piece; the tap less `before`
  int left;                         // pixels of the depth from this thread's first on
  int sample[EACH], row[EACH], col[EACH];

  // `depth` pixels of the other side from pixel `start` on, taps and channels from `first` on.
  __device__ __forceinline__ TransposedPixels(Image<T> image_, int k, int stride_, int before, int height_, int width_,
                                              int start, int depth, int first)
      : image(image_), height(height_), width(width_), stride(stride_) {
    const int line = first + threadIdx.x % ACROSS * tile::PIECE, tap = line / image.channels;
    tap_row = tap / k - before;
    tap_col = tap % k - before;
    channel = line % image.channels;
    left = tap < k * k ? depth - static_cast<int>(threadIdx.x) / ACROSS : 0;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const int pixel = start + threadIdx.x / ACROSS + i * DOWN;
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
      arch::cp_async16(to + tile::along_columns<COLS>(threadIdx.x / ACROSS + i * DOWN, threadIdx.x % ACROSS), piece,
                       inside);
      col[i] += tile::DEPTH;
      while (col[i] >= width) {
        col[i] -= width;
        if (++row[i] == height) {
          row[i] = 0;
          ++sample[i];
        }
      }
    }
    left -= tile::DEPTH;
  }
};

}  // namespace taps
