// Kernels that write out what one instruction did, for the driver to compare with the mapping's formula.
#include "arch90.cuh"

// ---- ldmatrix, stmatrix: two instructions, eight tiles, 64 rows of 8 halves ---------------------------------------

namespace {

template <bool TRANSPOSED> ARCH_FN void ldmatrix_unit(u32* out, const u16* rows) {
  DYN_SMEM(smem);
  const int lane = threadIdx.x;
  u16* shared = reinterpret_cast<u16*>(smem);
  for (int i = lane; i < 64 * 8; i += 32) shared[i] = rows[i];
  __syncwarp();
  u32 r[2][4];
  const u32 start = arch::smem_u32(smem);
  const u32 at[2] = {start + 16 * lane, start + 16 * (63 - lane)};  // the second one from the last row up
  if (TRANSPOSED) {
    arch::ldmatrix_trans(r, at);
  } else {
    arch::ldmatrix(r, at);
  }
  for (int i = 0; i < 8; ++i) out[lane * 8 + i] = r[i / 4][i % 4];
}

}  // namespace

extern "C" __global__ void unit_ldmatrix(u32* out, const u16* rows) { ldmatrix_unit<false>(out, rows); }
REGISTER_KERNEL(unit_ldmatrix)
extern "C" __global__ void unit_ldmatrix_trans(u32* out, const u16* rows) { ldmatrix_unit<true>(out, rows); }
REGISTER_KERNEL(unit_ldmatrix_trans)

// What stmatrix wrote, 64 rows of 8 halves, from registers [lane][2][4].
extern "C" __global__ void unit_stmatrix(u16* rows, const u32* registers) {
#ifdef HAVE_SM90A
  DYN_SMEM(smem);
  const int lane = threadIdx.x;
  u32 r[2][4];
  for (int i = 0; i < 8; ++i) r[i / 4][i % 4] = registers[lane * 8 + i];
  const u32 start = arch::smem_u32(smem);
  const u32 at[2] = {start + 16 * lane, start + 16 * (32 + lane)};
  arch::stmatrix(r, at);
  __syncwarp();
  const u16* shared = reinterpret_cast<const u16*>(smem);
  for (int i = lane; i < 64 * 8; i += 32) rows[i] = shared[i];
#endif
}
REGISTER_KERNEL(unit_stmatrix)

// ---- mma: registers in, registers out; 2 x 4 tiles ----------------------------------------------------------------

namespace {

template <class T> ARCH_FN void mma_unit(float* d_out, const float* d_in, const u32* a_in, const u32* b_in) {
  const int lane = threadIdx.x;
  float d[2][4][4];
  u32 a[2][4], b[4][2];
  for (int i = 0; i < 32; ++i) (&d[0][0][0])[i] = d_in[lane * 32 + i];
  for (int i = 0; i < 8; ++i) (&a[0][0])[i] = a_in[lane * 8 + i];
  for (int i = 0; i < 8; ++i) (&b[0][0])[i] = b_in[lane * 8 + i];
  arch::mma<T>(d, a, b);
  for (int i = 0; i < 32; ++i) d_out[lane * 32 + i] = (&d[0][0][0])[i];
}

// The same product by ldmatrix and mma, and by mma_smem: x (32, 16) and w (32, 16), both contiguous along k.
template <class T> ARCH_FN void mma_smem_unit(float* separate, float* fused, const u16* x, const u16* w) {
  DYN_SMEM(smem);
  const int lane = threadIdx.x;
  u16* shared = reinterpret_cast<u16*>(smem);
  for (int i = lane; i < 512; i += 32) {
    shared[i] = x[i];
    shared[512 + i] = w[i];
  }
  __syncwarp();
  const u32 a0 = arch::smem_u32(smem), b0 = a0 + 1024;
  u32 a_at[2], b_at[2], a[2][4], b[2][4];
  for (int i = 0; i < 2; ++i) {
    a_at[i] = a0 + (i * 16 + lane % 16) * 32 + lane / 16 * 16;
    b_at[i] = b0 + (i * 16 + lane % 8 + lane / 16 * 8) * 32 + lane / 8 % 2 * 16;
  }
  float d[2][4][4] = {}, e[2][4][4] = {};
  arch::ldmatrix(a, a_at);
  arch::ldmatrix(b, b_at);
  u32 pairs[4][2];
  for (int j = 0; j < 4; ++j) {
    for (int h = 0; h < 2; ++h) pairs[j][h] = b[j / 2][j % 2 * 2 + h];
  }
  arch::mma<T>(d, a, pairs);
  arch::mma_smem<T>(e, a_at, b_at);
  for (int i = 0; i < 32; ++i) {
    separate[lane * 32 + i] = (&d[0][0][0])[i];
    fused[lane * 32 + i] = (&e[0][0][0])[i];
  }
}

}  // namespace

#define ENTRY(T, suffix)                                                                                          \
  extern "C" __global__ void unit_mma_##suffix(float* d_out, const float* d_in, const u32* a_in, const u32* b_in) { \
    mma_unit<T>(d_out, d_in, a_in, b_in);                                                                         \
  }                                                                                                               \
  REGISTER_KERNEL(unit_mma_##suffix)                                                                              \
  extern "C" __global__ void unit_mma_smem_##suffix(float* separate, float* fused, const u16* x, const u16* w) {  \
    mma_smem_unit<T>(separate, fused, x, w);                                                                      \
  }                                                                                                               \
  REGISTER_KERNEL(unit_mma_smem_##suffix)
FOR_EACH_HALF(ENTRY)
#undef ENTRY

// ---- shuffles, votes, barriers, atomics ---------------------------------------------------------------------------

// out[thread][8]: up, down, xor over 8 lanes, broadcast within 8, a double through two words, ballot, any, all.
extern "C" __global__ void unit_shuffles(u32* out, const u32* x) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const u32 v = x[i];
  u32* o = out + i * 8;
  o[0] = __shfl_up_sync(0xffffffffu, v, 3);
  o[1] = __shfl_down_sync(0xffffffffu, v, 5, 16);
  o[2] = __shfl_xor_sync(0xffffffffu, v, 6, 8);
  o[3] = __shfl_sync(0xffffffffu, v, 11, 8);
  o[4] = static_cast<u32>(__shfl_sync(0xffffffffu, static_cast<double>(v), 31));
  o[5] = __ballot_sync(0xffffffffu, v % 3 == 0);
  o[6] = __any_sync(0xffffffffu, v % 5 == 0) * 2 + __all_sync(0xffffffffu, v < 1000);
  if (threadIdx.x % 32 < 16) {  // two halves of a warp, each on its own
    o[7] = __shfl_xor_sync(0x0000ffffu, v, 1) + 1;
  } else {
    o[7] = __shfl_xor_sync(0xffff0000u, v, 2) + 2;
  }
}
REGISTER_KERNEL(unit_shuffles)

// out[block][4]: threads whose x is odd, any above 90, all below 100; blocks counted by the last one.
extern "C" __global__ void unit_counts(u32* out, u32* done, const u32* x) {
  SHARED_ARRAY(u32, last, 1);
  const u32 v = x[blockIdx.x * blockDim.x + threadIdx.x];
  const int odd = __syncthreads_count(v % 2), any = __syncthreads_or(v > 90), all = __syncthreads_and(v < 100);
  if (threadIdx.x == 0) {
    out[blockIdx.x * 4] = odd;
    out[blockIdx.x * 4 + 1] = any != 0;
    out[blockIdx.x * 4 + 2] = all != 0;
    __threadfence();
    last[0] = atomicAdd(done, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (threadIdx.x == 1) out[blockIdx.x * 4 + 3] = last[0];
}
REGISTER_KERNEL(unit_counts)

// Two pairs of warps hand a value over, each pair at a barrier of its own, four times.
extern "C" __global__ void unit_named_barriers(u32* out) {
  SHARED_ARRAY(u32, slot, 64);
  const int pair = threadIdx.x / 64, lane = threadIdx.x % 32, second = threadIdx.x / 32 % 2;
  u32 sum = 0;
  for (u32 round = 0; round < 4; ++round) {
    if (!second) slot[pair * 32 + lane] = round * 1000 + threadIdx.x;
    arch::bar_sync(1 + pair, 64);  // written
    if (second) sum += slot[pair * 32 + (lane + 1) % 32];
    arch::bar_sync(1 + pair, 64);  // read
  }
  out[threadIdx.x] = sum;
}
REGISTER_KERNEL(unit_named_barriers)

// Shared memory after a copy was issued and after it was waited for; the second chunk is left out and becomes zero.
extern "C" __global__ void unit_cp_async(u32* before, u32* after, const u32* x) {
  DYN_SMEM(smem);
  const u32 start = arch::smem_u32(smem);
  const u32* shared = reinterpret_cast<const u32*>(smem);
  arch::cp_async16(start, x, true);
  arch::cp_async16(start + 16, nullptr, false);
  arch::cp_async_commit();
  for (int i = 0; i < 8; ++i) before[i] = shared[i];
  arch::cp_async_wait<0>();
  for (int i = 0; i < 8; ++i) after[i] = shared[i];
}
REGISTER_KERNEL(unit_cp_async)

// A box of 64 channels x 4 x 3 x 1 pixels, as it lies in shared memory.
extern "C" __global__ void unit_tma_4d(u16* out, const __grid_constant__ TensorMap map, int c, int x, int y, int n) {
#ifdef HAVE_SM90A
  DYN_SMEM(smem);
  const u32 start = arch::smem_u32(smem), full = start + 2048;
  if (threadIdx.x == 0) {
    arch::mbar_init(full, 1);
    arch::fence_mbar_init();
    arch::mbar_arrive_expect_tx(full, 64 * 12 * 2);
    arch::tma_load_4d(start, &map, full, c, x, y, n);
  }
  __syncthreads();  // the barrier is initialised
  arch::mbar_wait(full, 0);
  const u16* shared = reinterpret_cast<const u16*>(smem);
  for (int i = threadIdx.x; i < 64 * 12; i += blockDim.x) out[i] = shared[i];
#endif
}
REGISTER_KERNEL(unit_tma_4d)
