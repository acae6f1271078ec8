// Hopper's instructions (sm_90a): mbarriers, the tensor memory accelerator (TMA), wgmma, and what warpgroups with
// different roles need. Same pattern as arch.cuh, each instruction beside its host twin.
//
// A TMA tile is 1024-byte aligned when it is swizzled by 128 bytes; the emulator has no other swizzle for wgmma.
#pragma once
#include "arch.cuh"

#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAVE_SM90A 1  // kernels guard their bodies with it: the same file is compiled for sm_80
#endif

struct alignas(64) TensorMap { u64 opaque[16]; };  // a CUtensorMap, or the emulator's own

namespace arch {

// ---- mbarriers: shared addresses of 8 bytes -----------------------------------------------------------------------

ARCH_FN void mbar_init(u32 barrier, u32 count) {
#ifdef __CUDACC__
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
#else
  emu::mbar_init(barrier, count);
#endif
}
// After the last mbar_init, before the __syncthreads that lets others use them.
ARCH_FN void fence_mbar_init() {
#ifdef __CUDACC__
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
ARCH_FN void mbar_arrive(u32 barrier) {
#ifdef __CUDACC__
  asm volatile("{ .reg .b64 t; mbarrier.arrive.shared::cta.b64 t, [%0]; }" ::"r"(barrier) : "memory");
#else
  emu::mbar_arrive(barrier, 0);
#endif
}
// Arrives, and holds the phase until that many more bytes have been copied.
ARCH_FN void mbar_arrive_expect_tx(u32 barrier, u32 bytes) {
#ifdef __CUDACC__
  asm volatile("{ .reg .b64 t; mbarrier.arrive.expect_tx.shared::cta.b64 t, [%0], %1; }" ::"r"(barrier), "r"(bytes)
               : "memory");
#else
  emu::mbar_arrive(barrier, bytes);
#endif
}
ARCH_FN bool mbar_try_wait(u32 barrier, u32 parity ARCH_LOC) {
#ifdef __CUDACC__
  u32 done;
  asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
  return done;
#else
  return emu::mbar_try_wait(barrier, parity, file_, line_);
#endif
}
// Until the phase of that parity has completed. A fresh barrier is in phase 0: waiting for parity 1 returns at once.
ARCH_FN void mbar_wait(u32 barrier, u32 parity ARCH_LOC) {
#ifdef __CUDACC__
  while (!mbar_try_wait(barrier, parity)) {}
#else
  while (!mbar_try_wait(barrier, parity, file_, line_)) {}
#endif
}

// ---- TMA ----------------------------------------------------------------------------------------------------------

// Between ordinary stores to shared memory and what the copy engine or the tensor cores read there: by every thread
// that stored, before the barrier.
ARCH_FN void fence_proxy_async() {
#ifdef __CUDACC__
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#else
  emu::fence_proxy_async();
#endif
}
// Coordinates in elements, innermost first; outside the tensor are zeros. By one thread.
ARCH_FN void tma_load_2d(u32 to, const TensorMap* map, u32 barrier, int x0, int x1) {
#ifdef __CUDACC__
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
      ::"r"(to), "l"(map), "r"(barrier), "r"(x0), "r"(x1) : "memory");
#else
  const int at[2] = {x0, x1};
  emu::tma_load(to, map, barrier, at, 2);
#endif
}
ARCH_FN void tma_load_3d(u32 to, const TensorMap* map, u32 barrier, int x0, int x1, int x2) {
#ifdef __CUDACC__
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
      ::"r"(to), "l"(map), "r"(barrier), "r"(x0), "r"(x1), "r"(x2) : "memory");
#else
  const int at[3] = {x0, x1, x2};
  emu::tma_load(to, map, barrier, at, 3);
#endif
}
ARCH_FN void tma_load_4d(u32 to, const TensorMap* map, u32 barrier, int x0, int x1, int x2, int x3) {
#ifdef __CUDACC__
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
      ::"r"(to), "l"(map), "r"(barrier), "r"(x0), "r"(x1), "r"(x2), "r"(x3) : "memory");
#else
  const int at[4] = {x0, x1, x2, x3};
  emu::tma_load(to, map, barrier, at, 4);
#endif
}
// Writes a tile; what lies outside the tensor is left out. Needs fence_proxy_async and a barrier before it.
ARCH_FN void tma_store_2d(const TensorMap* map, u32 from, int x0, int x1) {
#ifdef __CUDACC__
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];"
               ::"l"(map), "r"(from), "r"(x0), "r"(x1) : "memory");
#else
  const int at[2] = {x0, x1};
  emu::tma_store(map, from, at, 2);
#endif
}
ARCH_FN void tma_store_commit() {
#ifdef __CUDACC__
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#else
  emu::tma_store_commit();
#endif
}
// Until all but N of this thread's groups have read their shared memory, which may then be reused; with N = 0 before
// the end of the kernel.
template <int N> ARCH_FN void tma_store_wait_read() {
#ifdef __CUDACC__
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
#else
  emu::tma_store_wait(N);
#endif
}

// ---- stmatrix -----------------------------------------------------------------------------------------------------

// The way back of ldmatrix: four 8x8 tiles of halves for each i, lane l gives the address of row l % 8 of tile l / 8.
template <int N> ARCH_FN void stmatrix(const u32 (&r)[N][4], const u32 (&address)[N] ARCH_LOC) {
#ifdef __CUDACC__
#pragma unroll
  for (int i = 0; i < N; ++i) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};"
                 ::"r"(address[i]), "r"(r[i][0]), "r"(r[i][1]), "r"(r[i][2]), "r"(r[i][3]) : "memory");
  }
#else
  emu::stmatrix(&r[0][0], address, N, false, file_, line_);
#endif
}

// ---- wgmma: 64 x N x 16 by a warpgroup ----------------------------------------------------------------------------

// Before the first wgmma, and after registers of d or A were touched.
ARCH_FN void wgmma_fence() {
#ifdef __CUDACC__
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
  emu::wgmma_fence();
#endif
}
ARCH_FN void wgmma_commit() {
#ifdef __CUDACC__
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
  emu::wgmma_commit();
#endif
}
// Until at most N groups are under way: the others' operands may be overwritten, and their d be read.
template <int N> ARCH_FN void wgmma_wait(ARCH_LOC_ONLY) {
#ifdef __CUDACC__
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#else
  emu::wgmma_wait(N, file_, line_);
#endif
}

// An operand in shared memory with the 128-byte swizzle, in atoms of 8 rows of 128 bytes, 1024-byte aligned. Element
// (mn, k) of an operand contiguous along k: mn % 8 * 128 + mn / 8 * stride + 2 k; along mn (transposed):
// mn / 64 * leading + mn % 64 * 2 + k % 8 * 128 + k / 8 * stride. Sixteen along k are 32 or 2048 bytes further.
ARCH_FN u64 wgmma_descriptor(u32 address, u32 leading, u32 stride) {
  return static_cast<u64>((address & 0x3ffffu) >> 4) | static_cast<u64>(leading >> 4) << 16 |
         static_cast<u64>(stride >> 4) << 32 | static_cast<u64>(1) << 62;
}

#ifdef __CUDACC__
template <int N> struct Width {};

#define ARCH_R32 \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
  "%30,%31"
#define ARCH_R64 \
  ARCH_R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57," \
           "%58,%59,%60,%61,%62,%63"
#define ARCH_R128 \
  ARCH_R64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89," \
           "%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112," \
           "%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define ARCH_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define ARCH_D32(i) \
  ARCH_D4(i), ARCH_D4(i + 4), ARCH_D4(i + 8), ARCH_D4(i + 12), ARCH_D4(i + 16), ARCH_D4(i + 20), ARCH_D4(i + 24), \
      ARCH_D4(i + 28)
#define ARCH_D64(i) ARCH_D32(i), ARCH_D32(i + 32)
#define ARCH_D128(i) ARCH_D64(i), ARCH_D64(i + 64)

// The operands after d: descriptors of A and B, whether to add to d, whether A and B are transposed.
#define ARCH_WGMMA(T, N, registers, outputs, a_, b_, scale_, a_trans_, b_trans_)                                    \
  template <int A_TRANS, int B_TRANS>                                                                             \
  ARCH_FN void wgmma_of(As<T>, Width<N>, float (&d)[N / 2], u64 a, u64 b, int scale_d) {                          \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %" scale_ ", 0;\n"                                               \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #T "." #T " {" registers "}, "                 \
                 "%" a_ ", %" b_ ", p, 1, 1, %" a_trans_ ", %" b_trans_ "; }"                                     \
                 : outputs                                                                                        \
                 : "l"(a), "l"(b), "r"(scale_d), "n"(A_TRANS), "n"(B_TRANS));                                     \
  }
ARCH_WGMMA(bf16, 64, ARCH_R32, ARCH_D32(0), "32", "33", "34", "35", "36")
ARCH_WGMMA(f16, 64, ARCH_R32, ARCH_D32(0), "32", "33", "34", "35", "36")
ARCH_WGMMA(bf16, 128, ARCH_R64, ARCH_D64(0), "64", "65", "66", "67", "68")
ARCH_WGMMA(f16, 128, ARCH_R64, ARCH_D64(0), "64", "65", "66", "67", "68")
ARCH_WGMMA(bf16, 256, ARCH_R128, ARCH_D128(0), "128", "129", "130", "131", "132")
ARCH_WGMMA(f16, 256, ARCH_R128, ARCH_D128(0), "128", "129", "130", "131", "132")

// The same with four registers of A: these, the descriptor of B, whether to add to d, whether B is transposed.
#define ARCH_WGMMA_REGISTERS(T, N, registers, outputs, a0, a1, a2, a3, b_, scale_, b_trans_)                        \
  template <int B_TRANS>                                                                                          \
  ARCH_FN void wgmma_of(As<T>, float (&d)[N / 2], const u32 (&a)[4], u64 b, int scale_d) {                        \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %" scale_ ", 0;\n"                                               \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #T "." #T " {" registers "}, "                 \
                 "{%" a0 ",%" a1 ",%" a2 ",%" a3 "}, %" b_ ", p, 1, 1, %" b_trans_ "; }"                          \
                 : outputs                                                                                        \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(scale_d), "n"(B_TRANS));               \
  }
ARCH_WGMMA_REGISTERS(bf16, 64, ARCH_R32, ARCH_D32(0), "32", "33", "34", "35", "36", "37", "38")
ARCH_WGMMA_REGISTERS(f16, 64, ARCH_R32, ARCH_D32(0), "32", "33", "34", "35", "36", "37", "38")
ARCH_WGMMA_REGISTERS(bf16, 128, ARCH_R64, ARCH_D64(0), "64", "65", "66", "67", "68", "69", "70")
ARCH_WGMMA_REGISTERS(f16, 128, ARCH_R64, ARCH_D64(0), "64", "65", "66", "67", "68", "69", "70")
#endif

// d (64 x 2R, accumulators as of mma for every 8 columns, warp w has rows 16 w ..) = A B + (scale_d ? d : 0).
// Columns N = 2R: 64, 128 or 256.
template <class T, int A_TRANS, int B_TRANS, int R>
ARCH_FN void wgmma(float (&d)[R], u64 a, u64 b, int scale_d ARCH_LOC) {
  static_assert(R == 32 || R == 64 || R == 128, "64, 128 or 256 columns");
#ifdef __CUDACC__
  wgmma_of<A_TRANS, B_TRANS>(As<T>{}, Width<2 * R>{}, d, a, b, scale_d);
#else
  emu::wgmma(d, 2 * R, a, b, A_TRANS != 0, B_TRANS != 0, scale_d != 0, HalfKind<T>::kind, file_, line_);
#endif
}

// d (64 x 2R) = A B + (scale_d ? d : 0), with A (64 x 16) in registers, as of mma: warp w has rows 16 w .. They are in
// use until a wait. Columns 2R: 64 or 128.
template <class T, int B_TRANS, int R>
ARCH_FN void wgmma_registers(float (&d)[R], const u32 (&a)[4], u64 b, int scale_d ARCH_LOC) {
  static_assert(R == 32 || R == 64, "64 or 128 columns");
#ifdef __CUDACC__
  wgmma_of<B_TRANS>(As<T>{}, d, a, b, scale_d);
#else
  emu::wgmma_registers(d, 2 * R, a, b, B_TRANS != 0, scale_d != 0, HalfKind<T>::kind, file_, line_);
#endif
}

// ---- clusters: blocks side by side along x, as many as __cluster_dims__ says -----------------------------------------

// This block's number in its cluster.
ARCH_FN int cluster_rank() {
#ifdef __CUDACC__
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#else
  return emu::cluster_rank();
#endif
}
// A __syncthreads of all blocks of the cluster, from converged warps. Before the first read of another block's memory, which
// may not have started, and after the last one, which may end.
ARCH_FN void cluster_sync(ARCH_LOC_ONLY) {
#ifdef __CUDACC__
  asm volatile("barrier.cluster.arrive.release.aligned;\n"
               "barrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
  emu::cluster_sync(file_, line_);
#endif
}
// What block `rank` of the cluster has where this one has `at`, in dynamic shared memory.
ARCH_FN float cluster_load(const float* at, int rank ARCH_LOC) {
#ifdef __CUDACC__
  float v;
  asm volatile("{ .reg .u32 there; mapa.shared::cluster.u32 there, %1, %2; ld.shared::cluster.f32 %0, [there]; }"
               : "=f"(v) : "r"(smem_u32(at)), "r"(rank) : "memory");
  return v;
#else
  return *static_cast<const float*>(emu::cluster_at(at, sizeof(float), rank, file_, line_));
#endif
}

// ---- roles --------------------------------------------------------------------------------------------------------

// Counts this thread at a named barrier (arch.cuh) without waiting there.
ARCH_FN void bar_arrive(int id, int threads ARCH_LOC) {
#ifdef __CUDACC__
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
  emu::bar_sync(id, threads, false, file_, line_);
#endif
}

// Moves registers between the warpgroups of a block.
template <int REGISTERS> ARCH_FN void setmaxnreg_inc() {
#ifdef __CUDACC__
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
#endif
}
template <int REGISTERS> ARCH_FN void setmaxnreg_dec() {
#ifdef __CUDACC__
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
#endif
}

}  // namespace arch
