// Matrix products on tensor cores: y (rows, cols) = a (rows, depth) b (depth, cols), one tile of y a block.
//
// The depth is walked in steps; while one is multiplied, the copies of the next ones are under way (cp.async). What the
// operands are is left to objects that copy their part of one step to shared memory and go on to the next: Rows and
// Columns here, pixels of an image in taps.cuh. A copy moves pieces of 8 values (16 bytes), zeros beyond the edges: the
// depth or the columns, whichever lie side by side in memory, must be a multiple of 8. Where a piece goes is up to the
// shape of the tile: here they are swizzled so that neither the copies nor ldmatrix meet a bank twice. The depth may be
// a chunk of a longer one (chunks.cuh), in whole pieces.
#pragma once
#include "chunks.cuh"

namespace tile {

static constexpr int PIECE = 8;  // values that are copied at once

template <class T, class S, class A, class B>
ARCH_FN void multiply(float (&acc)[S::I][S::J][4], A& a, B& b, int depth, const unsigned char* smem);

// A block's tile: two rows of warps, each warp 16 I x 8 J outputs in fragments of 16 x 8.
template <int ROWS_, int COLS_> struct Shape {
  static constexpr int ROWS = ROWS_, COLS = COLS_;
  static constexpr int DEPTH = 32, PIECES = DEPTH / PIECE;  // of one step; pieces of one row along the depth
  static constexpr int STAGES = 3;  // steps in shared memory: one multiplied, the others arriving
  static constexpr int I = ROWS / 32, J = 4;
  static constexpr int WARPS_ACROSS = COLS / (8 * J), THREADS = 2 * WARPS_ACROSS * 32;
  static constexpr int A_BYTES = 2 * ROWS * DEPTH, STAGE_BYTES = A_BYTES + 2 * COLS * DEPTH;
  static_assert(ROWS % 32 == 0 && COLS % 64 == 0, "whole warps, and whole swizzles across");

  // Where a piece is in a step whose rows run along the depth, in bytes: two rows span the banks.
  ARCH_FN u32 along_depth(int row, int piece) { return row * (2 * DEPTH) + ((piece ^ (row / 2 % PIECES)) << 4); }

  // Where a piece is in a step whose rows run along WIDTH columns.
  template <int WIDTH> ARCH_FN u32 along_columns(int row, int piece) {
    return row * (2 * WIDTH) + ((piece ^ (row % PIECE)) << 4);
  }

  // acc = this block's tile of a b; `smem`: STAGES * STAGE_BYTES.
  template <class T, class A, class B>
  ARCH_FN void multiply(float (&acc)[I][J][4], A& a, B& b, int depth, const unsigned char* smem) {
    tile::multiply<T, Shape>(acc, a, b, depth, smem);
  }
};

// a of a row-major matrix, or b of a transposed one: a chunk of LINES of the `lines` rows of `from` (lines, depth).
template <class T, class S, int LINES> struct Rows {
  static constexpr bool ALONG_DEPTH = true;
  const T* from;
  int lines, depth, end;  // end: of the chunk
  int line, at;           // this thread's first row; where its piece of this step starts

  __device__ __forceinline__ Rows(const T* matrix, int lines_, int depth_, int first, chunks::Chunk chunk)
      : from(matrix), lines(lines_), depth(depth_), end(chunk.first + chunk.depth),
        line(first + threadIdx.x / S::PIECES), at(chunk.first + threadIdx.x % S::PIECES * PIECE) {}

  __device__ __forceinline__ void copy(u32 to) {
#pragma unroll
    for (int i = 0; i < LINES; i += S::THREADS / S::PIECES) {
      const bool inside = line + i < lines && at < end;
      const T* const piece = inside ? from + static_cast<size_t>(line + i) * depth + at : from;
      arch::cp_async16(to + S::along_depth(threadIdx.x / S::PIECES + i, threadIdx.x % S::PIECES), piece, inside);
    }
    at += S::DEPTH;
  }
};

// b of a row-major matrix, or a of a transposed one: a chunk of COLS of the `cols` columns of `from` (depth, cols).
template <class T, class S, int COLS> struct Columns {
  static constexpr bool ALONG_DEPTH = false;
  static constexpr int ACROSS = COLS / PIECE;
  const T* from;
  int depth, cols;
  int at, col;  // this thread's first row of this step, and its piece of it

  __device__ __forceinline__ Columns(const T* matrix, int cols_, int first, chunks::Chunk chunk)
      : from(matrix + static_cast<size_t>(chunk.first) * cols_), depth(chunk.depth), cols(cols_),
        at(threadIdx.x / ACROSS), col(first + threadIdx.x % ACROSS * PIECE) {}

  __device__ __forceinline__ void copy(u32 to) {
#pragma unroll
    for (int i = 0; i < S::DEPTH; i += S::THREADS / ACROSS) {
      const bool inside = at + i < depth && col < cols;
      const T* const piece = inside ? from + static_cast<size_t>(at + i) * cols + col : from;
      const u32 place = S::template along_columns<COLS>(threadIdx.x / ACROSS + i, threadIdx.x % ACROSS);
      arch::cp_async16(to + place, piece, inside);
    }
    at += S::DEPTH;
  }
};

// acc += one step: a (ROWS, DEPTH) and b (DEPTH, COLS) in shared memory, both of which lie across the depth.
template <class T, class S> ARCH_FN void multiply_step_across(float (&acc)[S::I][S::J][4], u32 a, u32 b) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = warp / S::WARPS_ACROSS * (16 * S::I), col = warp % S::WARPS_ACROSS * 32;
#pragma unroll
  for (int k = 0; k < S::DEPTH; k += 16) {
    u32 a_at[S::I], b_at[S::J / 2];
#pragma unroll
    for (int i = 0; i < S::I; ++i) {
      const int piece = row / PIECE + 2 * i + lane / 8 % 2;
      a_at[i] = a + S::template along_columns<S::ROWS>(k + lane / 16 * 8 + lane % 8, piece);
    }
#pragma unroll
    for (int j = 0; j < S::J / 2; ++j) {
      b_at[j] = b + S::template along_columns<S::COLS>(k + lane % 16, col / PIECE + 2 * j + lane / 16);
    }
    u32 a_part[S::I][4], b_part[S::J / 2][4];
    arch::ldmatrix_trans(a_part, a_at);
    arch::ldmatrix_trans(b_part, b_at);
    arch::mma<T>(acc, a_part, reinterpret_cast<const u32(&)[S::J][2]>(b_part));
  }
}

// acc += one step: a (ROWS, DEPTH) along the depth and b (DEPTH, COLS) in shared memory.
template <class T, class S, bool B_ALONG_DEPTH>
ARCH_FN void multiply_step(float (&acc)[S::I][S::J][4], u32 a, u32 b) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = warp / S::WARPS_ACROSS * (16 * S::I), col = warp % S::WARPS_ACROSS * 32;
#pragma unroll
  for (int k = 0; k < S::DEPTH; k += 16) {
    u32 a_at[S::I], b_at[S::J / 2];
#pragma unroll
    for (int i = 0; i < S::I; ++i) a_at[i] = a + S::along_depth(row + 16 * i + lane % 16, k / PIECE + lane / 16);
    if constexpr (B_ALONG_DEPTH) {
#pragma unroll
      for (int j = 0; j < S::J / 2; ++j) {
        b_at[j] = b + S::along_depth(col + 16 * j + lane / 16 * 8 + lane % 8, k / PIECE + lane / 8 % 2);
      }
      arch::mma_smem<T>(acc, a_at, b_at);
    } else {
#pragma unroll
      for (int j = 0; j < S::J / 2; ++j) {
        b_at[j] = b + S::template along_columns<S::COLS>(k + lane % 16, col / PIECE + 2 * j + lane / 16);
      }
      u32 a_part[S::I][4], b_part[S::J / 2][4];
      arch::ldmatrix(a_part, a_at);
      arch::ldmatrix_trans(b_part, b_at);
      arch::mma<T>(acc, a_part, reinterpret_cast<const u32(&)[S::J][2]>(b_part));
    }
  }
}

// The steps of a product on their way to shared memory: a ring of S::STAGES stages from `start` on.
template <class S, class A, class B> struct Ring {
  A& a;
  B& b;
  int left;           // steps to copy
  u32 start, filled;  // where the next one goes

  __device__ __forceinline__ Ring(A& a_, B& b_, int steps, const unsigned char* smem)
      : a(a_), b(b_), left(steps), start(arch::smem_u32(smem)), filled(start) {}

  // Copies the next step, a group of copies; an empty one beyond the last: the waits count groups.
  __device__ __forceinline__ void fill() {
    if (left > 0) {
      a.copy(filled);
      b.copy(filled + S::A_BYTES);
      --left;
    }
    arch::cp_async_commit();
    filled = after(filled);
  }

  __device__ __forceinline__ u32 after(u32 stage) const {
    return stage + S::STAGE_BYTES == start + S::STAGES * S::STAGE_BYTES ? start : stage + S::STAGE_BYTES;
  }
};

template <class S> ARCH_FN void clear(float (&acc)[S::I][S::J][4]) {
#pragma unroll
  for (int i = 0; i < S::I; ++i)
#pragma unroll
    for (int j = 0; j < S::J; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[i][j][e] = 0.0f;
}

// acc = this block's tile of a b; `smem`: S::STAGES * S::STAGE_BYTES.
template <class T, class S, class A, class B>
ARCH_FN void multiply(float (&acc)[S::I][S::J][4], A& a, B& b, int depth, const unsigned char* smem) {
  clear<S>(acc);
  const int steps = (depth + S::DEPTH - 1) / S::DEPTH;
  Ring<S, A, B> ring(a, b, steps, smem);
  u32 read = ring.start;
#pragma unroll
  for (int i = 0; i < S::STAGES - 1; ++i) ring.fill();
  for (int step = 0; step < steps; ++step) {
    arch::cp_async_wait<S::STAGES - 2>();
    __syncthreads();  // this step has arrived for all threads, and all are done with the last one, which is filled next
    ring.fill();
    if constexpr (A::ALONG_DEPTH) {
      multiply_step<T, S, B::ALONG_DEPTH>(acc, read, read + S::A_BYTES);
    } else {
      static_assert(!B::ALONG_DEPTH, "no product needs it");
      multiply_step_across<T, S>(acc, read, read + S::A_BYTES);
    }
    read = ring.after(read);
  }
}

// Row r of the products is row r of y.
struct InOrder {
  __device__ __forceinline__ size_t operator()(int row) const { return row; }
};

// Where the products go, and what is added to them: y (rows, cols) = products + bias + shift + residual.
template <class O, class T, class Place = InOrder> struct Output {
  O* y;
  const float* bias;  // (cols) or null
  const T* shift;     // (rows / sample_rows, cols) or null
  const T* residual;  // (rows, cols) or null
  int rows, cols, sample_rows;  // rows of the products
  Place place = {};             // the row of y that a row of the products is
};

// This block's chunk of the products, in float: sums (chunks, rows, cols), which sum/parts.cu adds.
template <class T> ARCH_FN Output<float, T> part(float* sums, int rows, int cols) {
  return {chunks::sums(sums, static_cast<size_t>(rows) * cols), nullptr, nullptr, nullptr, rows, cols, 1};
}

// sum += scale * the piece at `from`
template <class T> ARCH_FN void add_piece(float (&sum)[PIECE], const T* from, float scale = 1.0f) {
  constexpr int N = 16 / sizeof(T);
#pragma unroll
  for (int c = 0; c < PIECE; c += N) {
    const auto part = *reinterpret_cast<const Pack<T, N>*>(from + c);
#pragma unroll
    for (int e = 0; e < N; ++e) sum[c + e] += scale * arch::to_f32(part.v[e]);
  }
}

template <class O> ARCH_FN void store_piece(O* to, const float (&sum)[PIECE]) {
  constexpr int N = 16 / sizeof(O);
#pragma unroll
  for (int c = 0; c < PIECE; c += N) {
    Pack<O, N> part;
#pragma unroll
    for (int e = 0; e < N; ++e) part.v[e] = arch::from_f32<O>(sum[c + e]);
    *reinterpret_cast<Pack<O, N>*>(to + c) = part;
  }
}

// Stores a piece of y: the products `sum`, to which it adds what is added to them.
template <class Out> ARCH_FN void finish(const Out& out, float (&sum)[PIECE], int row, int col) {
  const size_t at = out.place(row) * out.cols + col;
  if (out.bias) add_piece(sum, out.bias + col);
  if (out.shift) add_piece(sum, out.shift + static_cast<size_t>(row / out.sample_rows) * out.cols + col);
  if (out.residual) add_piece(sum, out.residual + at);
  store_piece(out.y + at, sum);
}

// What else of memory a piece takes: an output that reads much has an overload of its own, and is given it a part later.
struct Nothing {};
template <class Out> ARCH_FN Nothing beside(const Out&, int, int) { return {}; }

template <class Out> ARCH_FN void finish(const Out& out, const Nothing&, float (&sum)[PIECE], int row, int col) {
  finish(out, sum, row, col);
}

static constexpr int STORE_PITCH = 40;  // floats from row to row: four rows of a fragment meet different banks
// What a tile is stored by way of, in bytes.
template <class S> static constexpr int STORE_BYTES = S::THREADS / 32 * 16 * STORE_PITCH * 4;

// Is shown the pieces that a thread stores, before they are rounded, and looks at none.
struct Unseen {
  __device__ __forceinline__ void operator()(int, bool, const float (&)[PIECE]) const {}
};

// Stores the tile at (row, col), by way of STORE_BYTES of shared memory that nobody else uses, so that a thread has
// whole pieces to move. Warps do not wait for each other. `seen` is shown them: the number of the part, whether it is the
// first row of two, the piece.
template <class S, class Out, class Seen = const Unseen>
ARCH_FN void store_apart(const Out& out, const float (&acc)[S::I][S::J][4], int row, int col, unsigned char* smem,
                         Seen& seen = Unseen{}) {
  constexpr int PITCH = STORE_PITCH;
  constexpr int EACH = 4;  // fragments of a part, side by side
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, in_group = lane % 4;
  float* const part = reinterpret_cast<float*>(smem) + warp * 16 * PITCH;  // (16, 32) of this warp's outputs
  row += warp / S::WARPS_ACROSS * (16 * S::I) + group;
  col += warp % S::WARPS_ACROSS * (8 * S::J) + in_group * PIECE;
  // f: the first fragment of a part. The pieces of a thread lie in two rows of it, eight apart.
  const auto row_of = [&](int f, int half) { return row + 16 * (f / S::J) + 8 * half; };
  const auto col_of = [&](int f) { return col + 8 * (f % S::J); };
  const auto is_inside = [&](int f, int half) { return row_of(f, half) < out.rows && col_of(f) < out.cols; };
  decltype(beside(out, 0, 0)) with[2], next[2];
  const auto ask = [&](int f) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (is_inside(f, half)) next[half] = beside(out, row_of(f, half), col_of(f));
    }
  };
  ask(0);
#pragma unroll
  for (int f = 0; f < S::I * S::J; f += EACH) {
    const int i = f / S::J, first = f % S::J;
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
      const float(&fragment)[4] = acc[i][first + j];
      float* const to = part + group * PITCH + 8 * j + 2 * in_group;
      *reinterpret_cast<Pack<float, 2>*>(to) = {fragment[0], fragment[1]};
      *reinterpret_cast<Pack<float, 2>*>(to + 8 * PITCH) = {fragment[2], fragment[3]};
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) with[half] = next[half];
    if (f + EACH < S::I * S::J) ask(f + EACH);
    __syncwarp();  // the part is whole
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (is_inside(f, half)) {
        float sum[PIECE] = {};
        add_piece(sum, part + (group + 8 * half) * PITCH + in_group * PIECE);
        finish(out, with[half], sum, row_of(f, half), col_of(f));
        seen(f / EACH, half == 0, sum);
      }
    }
    __syncwarp();  // the part is read: the next one goes there
  }
}

// The same where the steps were.
template <class S, class Out>
ARCH_FN void store(const Out& out, const float (&acc)[S::I][S::J][4], int row, int col, unsigned char* smem) {
  static_assert(STORE_BYTES<S> <= S::STAGES * S::STAGE_BYTES, "it fits");
  __syncthreads();  // all warps are done with the steps
  store_apart<S>(out, acc, row, col, smem);
}

}  // namespace tile
