// A product by TMA and wgmma with one producer warp and one consumer warpgroup, and faults planted one at a time.
//
// y (m, n) = x (m, k) w, m a multiple of 64, n of N, k of 64; w is (n, k) or, when TRANSPOSED, (k, n). Four stages of
// 64 deep tiles. `full` barriers count the bytes of a stage, `empty` ones say that its wgmmas have finished.
#include "arch90.cuh"

namespace {

struct Params {
  int m, n, k;
};

enum Fault {
  NONE, WRONG_STRIDE, WRONG_LEADING, WRONG_ADVANCE, SWAPPED_COORDINATES, NO_FULL_WAIT, WRONG_PARITY, NO_EMPTY_WAIT,
  TOO_FEW_BYTES, NO_EXPECT, EARLY_RELEASE, NO_BARRIER_AFTER_INIT, NO_WGMMA_WAIT, NO_WGMMA_FENCE, NO_PROXY_FENCE,
  NO_STORE_WAIT, A_OVERWRITTEN
};

[[maybe_unused]] constexpr int STAGES = 4;  // not seen below sm_90a
constexpr int DEPTH = 64, ROWS = 64;
constexpr u32 X_BYTES = ROWS * DEPTH * 2;
template <int N> constexpr u32 STAGE_BYTES = X_BYTES + N * DEPTH * 2;

template <int N, bool TRANSPOSED, int FAULT>
ARCH_FN void produce(u32 shared, const TensorMap* x, const TensorMap* w, const Params& p) {
  const u32 full = shared + STAGES * STAGE_BYTES<N>, empty = full + 8 * STAGES;
  const int m0 = blockIdx.x * ROWS, n0 = blockIdx.y * N;
  for (int step = 0; step < p.k / DEPTH; ++step) {
    const int stage = step % STAGES, round = step / STAGES, k = step * DEPTH;
    const u32 x_to = shared + stage * STAGE_BYTES<N>, w_to = x_to + X_BYTES, bar = full + 8 * stage;
    if (FAULT != NO_EMPTY_WAIT) arch::mbar_wait(empty + 8 * stage, round % 2 ^ (FAULT == WRONG_PARITY ? 0 : 1));
    if (FAULT == NO_EXPECT) {
      arch::mbar_arrive(bar);
    } else {
      arch::mbar_arrive_expect_tx(bar, STAGE_BYTES<N> - (FAULT == TOO_FEW_BYTES ? 128 : 0));
    }
    if (FAULT == SWAPPED_COORDINATES) {
      arch::tma_load_2d(x_to, x, bar, m0, k);
    } else {
      arch::tma_load_2d(x_to, x, bar, k, m0);
    }
    for (int block = 0; block < N / 64; ++block) {  // 64 columns to a box
      const u32 to = w_to + block * 64 * DEPTH * 2;
      if (TRANSPOSED) {
        arch::tma_load_2d(to, w, bar, n0 + 64 * block, k);
      } else {
        arch::tma_load_2d(to, w, bar, k, n0 + 64 * block);
      }
    }
  }
}

template <class T, int N, bool TRANSPOSED, int FAULT> ARCH_FN void consume(float* y, u32 shared, const Params& p) {
  const u32 full = shared + STAGES * STAGE_BYTES<N>, empty = full + 8 * STAGES;
  const bool first = threadIdx.x == 0;
  float d[N / 2];
  for (int i = 0; i < N / 2; ++i) d[i] = 0.0f;
  for (int step = 0; step < p.k / DEPTH; ++step) {
    const int stage = step % STAGES;
    const u32 x_at = shared + stage * STAGE_BYTES<N>, w_at = x_at + X_BYTES;
    if (FAULT != NO_FULL_WAIT) arch::mbar_wait(full + 8 * stage, step / STAGES % 2);
    const u64 a = arch::wgmma_descriptor(x_at, 16, FAULT == WRONG_STRIDE ? 512 : 1024);
    const u32 leading = TRANSPOSED ? (FAULT == WRONG_LEADING ? 1024 : 64 * DEPTH * 2) : 16;
    const u64 b = arch::wgmma_descriptor(w_at, leading, 1024);
    const u64 a_advance = FAULT == WRONG_ADVANCE ? 4 : 2, b_advance = TRANSPOSED ? 2048 / 16 : 2;
    if (FAULT != NO_WGMMA_FENCE) arch::wgmma_fence();
    for (int k = 0; k < DEPTH / 16; ++k) {
      arch::wgmma<T, 0, TRANSPOSED>(d, a + a_advance * k, b + b_advance * k, step + k > 0);
    }
    arch::wgmma_commit();
    if (FAULT == EARLY_RELEASE) {
      if (first) arch::mbar_arrive(empty + 8 * stage);
    } else {
      arch::wgmma_wait<1>();
      if (first && step > 0) arch::mbar_arrive(empty + 8 * ((step - 1) % STAGES));
    }
  }
  if (FAULT != NO_WGMMA_WAIT) arch::wgmma_wait<0>();
  const int lane = threadIdx.x % 32, row = blockIdx.x * ROWS + threadIdx.x / 32 * 16 + lane / 4;
  for (int i = 0; i < N / 2; ++i) {
    const int column = blockIdx.y * N + i / 4 * 8 + lane % 4 * 2 + i % 2;
    y[static_cast<size_t>(row + i / 2 % 2 * 8) * p.n + column] = d[i];
  }
}

template <class T, int N, bool TRANSPOSED, int FAULT>
ARCH_FN void gemm(float* y, const TensorMap* x, const TensorMap* w, const Params& p) {
#ifdef HAVE_SM90A
  DYN_SMEM(smem);
  const u32 shared = arch::smem_u32(smem), full = shared + STAGES * STAGE_BYTES<N>, empty = full + 8 * STAGES;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; ++i) {
      arch::mbar_init(full + 8 * i, 1);
      arch::mbar_init(empty + 8 * i, 1);
    }
    arch::fence_mbar_init();
  }
  if (FAULT != NO_BARRIER_AFTER_INIT) __syncthreads();
  if (threadIdx.x >= 128) {
    if (threadIdx.x == 128) produce<N, TRANSPOSED, FAULT>(shared, x, w, p);
  } else {
    consume<T, N, TRANSPOSED, FAULT>(y, shared, p);
  }
#endif
}

// y = x w, 64 x 64 x 64, operands written by ordinary stores, w (k, n); y leaves by TMA.
template <int FAULT> ARCH_FN void through_shared(const TensorMap* y, const bf16* x, const bf16* w) {
#ifdef HAVE_SM90A
  DYN_SMEM(smem);
  const u32 shared = arch::smem_u32(smem);
  for (int i = threadIdx.x; i < 64 * 8; i += 128) {
    const int row = i / 8, chunk = i % 8, to = row * 128 + ((chunk ^ (row & 7)) << 4);
    *reinterpret_cast<uint4*>(smem + to) = *reinterpret_cast<const uint4*>(x + row * 64 + chunk * 8);
    *reinterpret_cast<uint4*>(smem + 8192 + to) = *reinterpret_cast<const uint4*>(w + row * 64 + chunk * 8);
  }
  if (FAULT != NO_PROXY_FENCE) arch::fence_proxy_async();
  __syncthreads();  // both operands are there
  float d[32];
  arch::wgmma_fence();
  for (int k = 0; k < 4; ++k) {
    const u64 a = arch::wgmma_descriptor(shared + 32 * k, 16, 1024);
    const u64 b = arch::wgmma_descriptor(shared + 8192 + 2048 * k, 8192, 1024);
    arch::wgmma<bf16, 0, 1>(d, a, b, k > 0);
  }
  arch::wgmma_commit();
  arch::wgmma_wait<0>();
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
  for (int i = 0; i < 32; ++i) {  // two boxes of 32 floats by 64 rows, not swizzled
    const int r = row + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    reinterpret_cast<float*>(smem + 16384)[column / 32 * 2048 + r * 32 + column % 32] = d[i];
  }
  arch::fence_proxy_async();
  __syncthreads();  // y is there
  if (threadIdx.x == 0) {
    for (int box = 0; box < 2; ++box) arch::tma_store_2d(y, shared + 16384 + box * 8192, box * 32, 0);
    arch::tma_store_commit();
    if (FAULT != NO_STORE_WAIT) arch::tma_store_wait_read<0>();
  }
#endif
}

// y = x w, 64 x 64 x 64, x in registers, in two groups of products; w written by ordinary stores, (n, k) or, when
// TRANSPOSED, (k, n).
template <class T, bool TRANSPOSED, int FAULT> ARCH_FN void from_registers(float* y, const T* x, const T* w) {
#ifdef HAVE_SM90A
  DYN_SMEM(smem);
  for (int i = threadIdx.x; i < 64 * 8; i += 128) {
    const int row = i / 8, chunk = i % 8, to = row * 128 + ((chunk ^ (row & 7)) << 4);
    *reinterpret_cast<uint4*>(smem + to) = *reinterpret_cast<const uint4*>(w + row * 64 + chunk * 8);
  }
  arch::fence_proxy_async();
  __syncthreads();  // w is there
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
  const u64 b = arch::wgmma_descriptor(arch::smem_u32(smem), 16, 1024);
  float d[32];
  u32 a[2][4];
  for (int k = 0; k < 4; k += 2) {
    for (int i = 0; i < 8; ++i) {
      const int at = (row + i % 2 * 8) * 64 + (k + i / 4) * 16 + i / 2 % 2 * 8 + 2 * (lane % 4);
      a[i / 4][i % 4] = *reinterpret_cast<const u32*>(x + at);
    }
    if (FAULT != NO_WGMMA_FENCE) arch::wgmma_fence();
    for (int i = 0; i < 2; ++i) {
      arch::wgmma_registers<T, TRANSPOSED>(d, a[i], b + (TRANSPOSED ? 128 : 2) * (k + i), k + i > 0);
    }
    arch::wgmma_commit();
    if (FAULT != A_OVERWRITTEN) arch::wgmma_wait<0>();
  }
  if (FAULT == A_OVERWRITTEN) arch::wgmma_wait<0>();
  for (int i = 0; i < 32; ++i) y[(row + i / 2 % 2 * 8) * 64 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
#endif
}

// y = two boxes of x, one after the other through the same shared memory, read by ldmatrix or, when WRITTEN, overwritten
// by ordinary stores.
template <bool WRITTEN, int FAULT> ARCH_FN void through_twice(u32* y, const TensorMap* x) {
#ifdef HAVE_SM90A
  DYN_SMEM(smem);
  const u32 shared = arch::smem_u32(smem), full = shared + 8192;
  if (threadIdx.x == 0) {
    arch::mbar_init(full, 1);
    arch::fence_mbar_init();
  }
  __syncthreads();  // the barrier is there
  for (int box = 0; box < 2; ++box) {
    if (threadIdx.x == 0) {
      arch::mbar_arrive_expect_tx(full, 8192);
      arch::tma_load_2d(shared, x, full, 0, 64 * box);
    }
    arch::mbar_wait(full, box);
    u32 r[1][4];
    const u32 at[1] = {shared + threadIdx.x * 16};
    if (WRITTEN) {
      const uint4 four = *reinterpret_cast<const uint4*>(smem + threadIdx.x * 16);
      *reinterpret_cast<uint4*>(smem + threadIdx.x * 16) = make_uint4(four.w, four.x, four.y, four.z);
      r[0][0] = four.x;
    } else {
      arch::ldmatrix(r, at);
    }
    y[box * 128 + threadIdx.x] = r[0][0];
    if (FAULT != NO_PROXY_FENCE) arch::fence_proxy_async();
    __syncthreads();  // all are done with the box
  }
#endif
}

}  // namespace

#define KERNEL(T, name, N, TRANSPOSED, FAULT)                                                                       \
  extern "C" __global__ void __launch_bounds__(160)                                                                 \
      name(float* y, const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, Params p) {          \
    gemm<T, N, TRANSPOSED, FAULT>(y, &x, &w, p);                                                                    \
  }                                                                                                                 \
  REGISTER_KERNEL(name)
KERNEL(bf16, hopper_bf16_64, 64, false, NONE)
KERNEL(f16, hopper_f16_128, 128, false, NONE)
KERNEL(bf16, hopper_bf16_128_transposed, 128, true, NONE)
KERNEL(f16, hopper_f16_256_transposed, 256, true, NONE)
KERNEL(bf16, hopper_wrong_stride, 64, false, WRONG_STRIDE)
KERNEL(bf16, hopper_wrong_leading, 128, true, WRONG_LEADING)
KERNEL(bf16, hopper_wrong_advance, 64, false, WRONG_ADVANCE)
KERNEL(bf16, hopper_swapped_coordinates, 64, false, SWAPPED_COORDINATES)
KERNEL(bf16, hopper_no_full_wait, 64, false, NO_FULL_WAIT)
KERNEL(bf16, hopper_wrong_parity, 64, false, WRONG_PARITY)
KERNEL(bf16, hopper_no_empty_wait, 64, false, NO_EMPTY_WAIT)
KERNEL(bf16, hopper_too_few_bytes, 64, false, TOO_FEW_BYTES)
KERNEL(bf16, hopper_no_expect, 64, false, NO_EXPECT)
KERNEL(bf16, hopper_early_release, 64, false, EARLY_RELEASE)
KERNEL(bf16, hopper_no_barrier_after_init, 64, false, NO_BARRIER_AFTER_INIT)
KERNEL(bf16, hopper_no_wgmma_wait, 64, false, NO_WGMMA_WAIT)
KERNEL(bf16, hopper_no_wgmma_fence, 64, false, NO_WGMMA_FENCE)

#define SHARED_KERNEL(name, FAULT)                                                                                  \
  extern "C" __global__ void __launch_bounds__(128) name(const __grid_constant__ TensorMap y, const bf16* x,        \
                                                         const bf16* w) {                                           \
    through_shared<FAULT>(&y, x, w);                                                                                \
  }                                                                                                                 \
  REGISTER_KERNEL(name)
SHARED_KERNEL(hopper_through_shared, NONE)
SHARED_KERNEL(hopper_no_proxy_fence, NO_PROXY_FENCE)
SHARED_KERNEL(hopper_no_store_wait, NO_STORE_WAIT)

#define REGISTERS_KERNEL(T, name, TRANSPOSED, FAULT)                                                                \
  extern "C" __global__ void __launch_bounds__(128) name(float* y, const T* x, const T* w) {                        \
    from_registers<T, TRANSPOSED, FAULT>(y, x, w);                                                                  \
  }                                                                                                                 \
  REGISTER_KERNEL(name)
REGISTERS_KERNEL(bf16, hopper_from_registers_bf16, true, NONE)
REGISTERS_KERNEL(f16, hopper_from_registers_f16, false, NONE)
REGISTERS_KERNEL(bf16, hopper_from_registers_no_fence, true, NO_WGMMA_FENCE)
REGISTERS_KERNEL(bf16, hopper_from_registers_overwritten, true, A_OVERWRITTEN)

#define TWICE_KERNEL(name, WRITTEN, FAULT)                                                                          \
  extern "C" __global__ void __launch_bounds__(128) name(u32* y, const __grid_constant__ TensorMap x) {             \
    through_twice<WRITTEN, FAULT>(y, &x);                                                                           \
  }                                                                                                                 \
  REGISTER_KERNEL(name)
TWICE_KERNEL(hopper_read_twice, false, NONE)
TWICE_KERNEL(hopper_read_twice_no_fence, false, NO_PROXY_FENCE)
TWICE_KERNEL(hopper_written_twice, true, NONE)
TWICE_KERNEL(hopper_written_twice_no_fence, true, NO_PROXY_FENCE)
