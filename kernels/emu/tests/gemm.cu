// A product by cp.async and mma, as the engine's kernels are built, with faults planted one at a time.
//
// y (m, n) = x (m, k) w (n, k)^T, m and n multiples of 64, k of 32. Three stages of 64 x 32 tiles of x and of w; 128
// threads, each warp 32 x 32 of y. One barrier a step: tiles have arrived, and the stage filled next is free.
#include "arch.cuh"

namespace {

struct Params {
  int m, n, k;
};

enum Fault {
  NONE, NO_BARRIER, WEAK_WAIT, NO_WAIT, SHIFTED_ROW, WRONG_SWIZZLE, WRONG_STAGE, OUTSIDE_SHARED, MISALIGNED
};

constexpr int STAGES = 3, TILE = 64, DEPTH = 32, TILE_BYTES = TILE * DEPTH * 2;

// Rows of four chunks of 16 bytes; the exchange keeps ldmatrix free of bank conflicts.
ARCH_FN u32 swizzle(int row, int chunk) { return row * 64 + ((chunk ^ (row >> 1 & 3)) << 4); }

// Step `step` of x and w to stage step % 3.
template <class T, int FAULT>
ARCH_FN void load(u32 shared, const T* x, const T* w, int row, int chunk, int step, const Params& p) {
  const int stage = FAULT == WRONG_STAGE && step > 3 ? (step + 1) % STAGES : step % STAGES;
  const u32 to = shared + stage * 2 * TILE_BYTES + (FAULT == OUTSIDE_SHARED && step == 5 ? 6 * TILE_BYTES : 0);
  const int shift = FAULT == SHIFTED_ROW ? 1 : 0;
  for (int half = 0; half < 2; ++half) {
    const int r = row + 32 * half;
    const size_t from = static_cast<size_t>(r + shift) * p.k + step * DEPTH + chunk * 8;
    arch::cp_async16(to + swizzle(r, chunk), x + from + (FAULT == MISALIGNED), true);
    arch::cp_async16(to + TILE_BYTES + swizzle(r, chunk), w + from, true);
  }
}

template <class T, int FAULT> ARCH_FN void gemm(float* y, const T* x, const T* w, const Params& p) {
  DYN_SMEM(smem);
  const u32 shared = arch::smem_u32(smem);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = threadIdx.x / 4, chunk = threadIdx.x % 4;
  const int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE, steps = p.k / DEPTH;
  x += static_cast<size_t>(m0) * p.k;
  w += static_cast<size_t>(n0) * p.k;
  float sum[2][4][4] = {};
  for (int step = 0; step < STAGES - 1; ++step) {
    if (step < steps) load<T, FAULT>(shared, x, w, row, chunk, step, p);
    arch::cp_async_commit();
  }
  for (int step = 0; step < steps; ++step) {
    if (FAULT == WEAK_WAIT) {
      arch::cp_async_wait<STAGES - 1>();
    } else if (FAULT != NO_WAIT) {
      arch::cp_async_wait<STAGES - 2>();
    }
    if (FAULT != NO_BARRIER) __syncthreads();
    if (step + STAGES - 1 < steps) load<T, FAULT>(shared, x, w, row, chunk, step + STAGES - 1, p);
    arch::cp_async_commit();
    const u32 a0 = shared + step % STAGES * 2 * TILE_BYTES, b0 = a0 + TILE_BYTES;
    for (int k = 0; k < 2; ++k) {
      u32 a_at[2], b_at[2];
      for (int i = 0; i < 2; ++i) {
        const int a_row = warp / 2 * 32 + i * 16 + lane % 16, b_row = warp % 2 * 32 + i * 16 + lane % 8 + lane / 16 * 8;
        const int a_chunk = k * 2 + lane / 16, b_chunk = k * 2 + lane / 8 % 2;
        a_at[i] = a0 + (FAULT == WRONG_SWIZZLE ? a_row * 64 + a_chunk * 16 : swizzle(a_row, a_chunk));
        b_at[i] = b0 + swizzle(b_row, b_chunk);
      }
      arch::mma_smem<T>(sum, a_at, b_at);
    }
  }
  for (int e = 0; e < 32; ++e) {
    const int i = e / 16, j = e / 4 % 4, high = e / 2 % 2;
    const int r = m0 + warp / 2 * 32 + i * 16 + lane / 4 + 8 * high;
    y[static_cast<size_t>(r) * p.n + n0 + warp % 2 * 32 + j * 8 + lane % 4 * 2 + e % 2] = sum[i][j][e % 4];
  }
}

}  // namespace

#define KERNEL(T, name, FAULT)                                                                       \
  extern "C" __global__ void __launch_bounds__(128) name(float* y, const T* x, const T* w, Params p) { \
    gemm<T, FAULT>(y, x, w, p);                                                                      \
  }                                                                                                  \
  REGISTER_KERNEL(name)
KERNEL(bf16, gemm_bf16, NONE)
KERNEL(f16, gemm_f16, NONE)
KERNEL(bf16, gemm_no_barrier, NO_BARRIER)
KERNEL(bf16, gemm_weak_wait, WEAK_WAIT)
KERNEL(bf16, gemm_no_wait, NO_WAIT)
KERNEL(bf16, gemm_shifted_row, SHIFTED_ROW)
KERNEL(bf16, gemm_wrong_swizzle, WRONG_SWIZZLE)
KERNEL(bf16, gemm_wrong_stage, WRONG_STAGE)
KERNEL(bf16, gemm_outside_shared, OUTSIDE_SHARED)
KERNEL(bf16, gemm_misaligned, MISALIGNED)
