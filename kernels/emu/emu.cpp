// emu.cpp - scheduler (fibers), barriers, collectives, asynchronous-copy model, tensor-core maths.
// Compiled without -fsanitize=thread (but with -DEMU_TSAN) in ThreadSanitizer builds.
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdarg>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>
#include <sys/mman.h>
#include <unistd.h>
#include "emu_arch.h"
#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(EMU_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" { void __tsan_read_range(void*, unsigned long); void __tsan_write_range(void*, unsigned long); }
#endif

extern "C" void emu_swap(void** save_sp, void* load_sp);
asm(R"(
.text
.globl emu_swap
.hidden emu_swap
.type emu_swap,@function
emu_swap:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size emu_swap,.-emu_swap
.section .note.GNU-stack,"",@progbits
.text
)");

#if defined(EMU_TSAN)   // libtsan intercepts memcpy/memset even here: use loops the checker does not see
static inline void* t_copy(void* d, const void* s, size_t n) { for (size_t i = 0; i < n; i++) ((volatile char*)d)[i] = ((const char*)s)[i]; return d; }
static inline int t_cmp(const void* a, const void* b, size_t n) { for (size_t i = 0; i < n; i++) if (((const volatile char*)a)[i] != ((const char*)b)[i]) return 1; return 0; }
static inline void* t_set(void* d, int v, size_t n) { for (size_t i = 0; i < n; i++) ((volatile char*)d)[i] = (char)v; return d; }
#define memcpy t_copy
#define memcmp t_cmp
#define memset t_set
#endif
namespace emu {
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
__thread Ctx ctx;
__thread Config config;
bool batch = true;
static constexpr u32 MAX_SMEM = 227 * 1024, WINDOW = 256 * 1024;
#if defined(EMU_ASAN) || defined(EMU_TSAN) || !defined(__OPTIMIZE__)
static constexpr size_t STACK = 256 * 1024;
#else
static constexpr size_t STACK = 64 * 1024;
#endif

// ---- state ------------------------------------------------------------------------------------
struct Fiber { void* sp; u8* lo; u8* top; void* fake; };
struct CpOp { u32 dst, n, nsrc; const void* src; };
// Grow-only array with plain loops: library vectors call intercepted memmove, which TSan would report.
#ifdef EMU_TSAN
static void release(void*) {}                       // free() too counts as an access
#else
static void release(void* p) { free(p); }
#endif
template <class T> struct Arr {
  T* p = nullptr; u32 n = 0, cap = 0;
  void push_back(const T& v) { if (n == cap) { u32 c = cap ? 2 * cap : 32; T* q = (T*)malloc(c * sizeof(T)); for (u32 i = 0; i < n; i++) q[i] = p[i]; release(p); p = q; cap = c; } p[n++] = v; }
  void drop_front(u32 k) { for (u32 i = k; i < n; i++) p[i - k] = p[i]; n -= k; }
  T& operator[](u32 i) { return p[i]; }
  T* begin() { return p; } T* end() { return p + n; }
  u32 size() const { return n; } void clear() { n = 0; } bool empty() const { return !n; }
  T& back() { return p[n - 1]; } void pop_back() { n--; }
};
struct CpQueue { Arr<CpOp> ops; Arr<u32> ends; };
struct Bar { u32 arrived, count, gen; int line; u32 wait[32]; char tsan[2]; };
struct Tma { u32 dst, bar; TensorMapHost map; int c[5]; };   // map copied: the issuing thread may exit first
struct WgOp { float* d[128]; int n; u64 da, db; u32 got; u8 ta, tb, scale, done; };
struct WgGroup { Arr<WgOp> ops; Arr<u32> ends; u32 done; u8 fenced[128]; };
struct Sched {
  Arr<Fiber*> free_, all; Fiber main{};
  Warp warps[32]; Lane lanes[1024]; Bar bars[16]; CpQueue cpq[1024];
  u32 n, nw, alive, wready; u64 rng; Config cfg; const Kernel* k; void** args; bool failed; char err[4096];
  u8* arena; u8* statics; size_t static_used; std::vector<std::pair<const void*, void*>> static_keys;
  Tma tma[64]; u32 ntma; WgGroup wg[8]; u8* shadow; bool shadow_ok; // async-proxy view of shared memory
  Stats st; void* tsan_id[4][1024]; Fiber* tsan_fib[4][1024]; u32 tsan_set; void* tsan_main; void* tsan_async[2]; u8 prio[32]; bool uniform; char ts_start, ts_done, ts_tma, ts_wg[8], ts_wgdone[8], ts_fail; bool hopper;
};
static __thread Sched* S;
static inline u32 rnd(u32 n) { u64 x = S->rng; x ^= x << 13; x ^= x >> 7; x ^= x << 17; S->rng = x; return u32((x >> 32) * n >> 32); }

void fence_acq_rel(const void* o, bool rel) {
#ifdef EMU_TSAN
  rel ? __tsan_release((void*)o) : __tsan_acquire((void*)o);
#else
  (void)o; (void)rel;
#endif
}
void san_access(const void* p, size_t n, bool w) {
#ifdef EMU_TSAN
  w ? __tsan_write_range((void*)p, n) : __tsan_read_range((void*)p, n);
#else
  (void)p; (void)n; (void)w;
#endif
}

// ---- fibers -----------------------------------------------------------------------------------
static void swap_to(Fiber* from, Fiber* to, void* tsan_to) {
  S->st.switches++;
#ifdef EMU_ASAN
  __sanitizer_start_switch_fiber(&from->fake, to->lo, to->top - to->lo);
#endif
#ifdef EMU_TSAN
  __tsan_switch_to_fiber(tsan_to, __tsan_switch_to_fiber_no_sync);
#endif
  (void)tsan_to;
  emu_swap(&from->sp, to->sp);
#ifdef EMU_ASAN
  __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}
static void* tsan_of(Lane* l) {
#ifdef EMU_TSAN
  return S->tsan_id[S->tsan_set][l->warp->id * 32 + l->lane];
#else
  (void)l; return nullptr;
#endif
}
static void fiber_main();
static void fiber_reset(Fiber* f, u32 i) {
  // colour the stacks: same-offset frames of 32 lanes would fall into the same L1 sets
  u8* top = f->top - (i * 5 % 16 * 256 + i / 16 % 4 * 64);
  void** p = (void**)top; *--p = nullptr; *--p = (void*)fiber_main;
  for (int k = 0; k < 6; k++) *--p = nullptr;
  f->sp = p; f->fake = nullptr;
}
static Fiber* fiber_new() {
    u8* m = (u8*)mmap(nullptr, STACK + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED) abort();
    mprotect(m, 4096, PROT_NONE);
    Fiber* f = new Fiber{nullptr, m + 4096, m + 4096 + STACK, nullptr};
    fiber_reset(f, (u32)S->all.size()); S->all.push_back(f); return f;
}
#ifdef EMU_TSAN   // stack and identity per thread index, four sets for consecutive blocks: no accidental ordering
static Fiber* fiber_get(Lane* l) { Fiber*& f = S->tsan_fib[S->tsan_set][l->warp->id * 32 + l->lane]; if (!f) f = fiber_new(); return f; }
static void fiber_put(Fiber*) {}
#else
static Fiber* fiber_get(Lane*) { if (S->free_.empty()) return fiber_new(); Fiber* f = S->free_.back(); S->free_.pop_back(); return f; }
static void fiber_put(Fiber* f) { S->free_.push_back(f); }
#endif
static void discard_all() {                       // after a failure: abandon every fiber
  S->free_.clear();
  for (u32 i = S->all.size(); i-- > 0;) {
    Fiber* f = S->all[i];
#ifdef EMU_ASAN
    __asan_unpoison_memory_region(f->lo, f->top - f->lo);
#endif
    fiber_reset(f, (u32)i); S->free_.push_back(f);
  }
#ifdef EMU_TSAN
  for (auto& set : S->tsan_id) for (auto& t : set) if (t) { __tsan_destroy_fiber(t); t = nullptr; }
#endif
}
[[noreturn]] void fail(const char* fmt, ...) {
  char msg[2048]; va_list ap; va_start(ap, fmt); vsnprintf(msg, sizeof msg, fmt, ap); va_end(ap);
  Lane* l = ctx.cur; fence_acq_rel(&S->ts_fail, false);
  snprintf(S->err, sizeof S->err, "%s: block (%u,%u,%u) thread (%u,%u,%u): %s", S->k->name, ctx.bid.x, ctx.bid.y, ctx.bid.z,
           l->tid.x, l->tid.y, l->tid.z, msg);
  S->failed = true; fence_acq_rel(&S->ts_fail, true);
  swap_to(l->fib, &S->main, S->tsan_main);
  abort();
}

// ---- scheduler --------------------------------------------------------------------------------
static inline void set_ready(Warp* w, u32 m) { w->ready |= m; S->wready |= 1u << w->id; }
static bool tma_complete_one(bool pick_random);
static const char* kind_name(int k) {
  const char* n[] = {"?", "shuffle", "vote", "__syncwarp", "ldmatrix", "ldmatrix.trans", "mma", "barrier", "mbarrier", "wgmma wait", "yield"};
  return n[k];
}
[[noreturn]] static void deadlock() {
  char b[1500]; int o = 0; b[0] = 0;
  bool seen[1024] = {};
  for (u32 i = 0; i < S->n && o < 1200; i++) {
    Lane& a = S->lanes[i]; if (a.exited || seen[i]) continue;
    u32 c = 0, bad_phase = a.wobj;
    for (u32 j = i; j < S->n; j++) { Lane& x = S->lanes[j]; if (!x.exited && x.wkind == a.wkind && x.wline == a.wline && x.wobj == a.wobj) { seen[j] = true; c++; } }
    o += snprintf(b + o, sizeof b - o, "\n  %u thread(s) from %u wait in %s at %s:%d", c, i, kind_name(a.wkind), a.wfile ? a.wfile : "?", a.wline);
    if (a.wkind == OP_MBAR) o += snprintf(b + o, sizeof b - o, " (mbarrier at smem 0x%x)", bad_phase);
  }
  fail("deadlock, %u of %u threads alive:%s", S->alive, S->n, b);
}
static Lane* pick(bool fair = false) {
  for (;;) {
    if (unlikely(S->cfg.async == 2 && S->ntma) && rnd(4) == 0) tma_complete_one(true);
    if (unlikely(!S->wready)) { if (S->ntma) { tma_complete_one(S->cfg.async == 2); continue; } deadlock(); }
    Warp* w; u32 l;
    if (likely(S->cfg.order == 0)) {
      w = ctx.cur->warp;
      if (!w->ready || (fair && S->wready & (S->wready - 1))) { u32 m = S->wready & ~((2u << w->id) - 1); w = &S->warps[__builtin_ctz(m ? m : S->wready)]; }
      u32 after = fair ? w->ready & ~((2u << ctx.cur->lane) - 1) : 0;
      l = __builtin_ctz(after ? after : w->ready);
    } else if (S->cfg.order == 1 && !fair) {
      w = &S->warps[31 - __builtin_clz(S->wready)]; l = 31 - __builtin_clz(w->ready);
    } else {
      // random warp priorities, occasionally changed: a uniform choice keeps all warps in step and misses
      // races that need one warp far ahead of the others
      u32 m = S->wready, best = ~0u;
      if (rnd(64) == 0) { u32 a = rnd(32), b = rnd(32); std::swap(S->prio[a], S->prio[b]); }
      if (S->uniform || fair) { for (u32 i = rnd(__builtin_popcount(m)); i; i--) m &= m - 1; w = &S->warps[__builtin_ctz(m)]; }
      else { for (; m; m &= m - 1) { u32 i = __builtin_ctz(m); if (S->prio[i] < best) { best = S->prio[i]; w = &S->warps[i]; } } }
      m = w->ready; for (u32 i = rnd(__builtin_popcount(m)); i; i--) m &= m - 1;
      l = __builtin_ctz(m);
    }
    w->ready &= ~(1u << l); if (!w->ready) S->wready &= ~(1u << w->id);
    return &w->lanes[l];
  }
}
static void block(bool fair = false) {            // the current lane waits; run another one
  Lane* me = ctx.cur; Lane* nx = pick(fair);
  if (nx == me) return;
  ctx.cur = nx;
  if (!nx->fib) nx->fib = fiber_get(nx);
  swap_to(me->fib, nx->fib, tsan_of(nx));
}
void yield() { Lane* l = ctx.cur; l->wkind = OP_YIELD; set_ready(l->warp, 1u << l->lane); block(true); }
static void wait_info(int kind, const char* f, int line, u32 obj) { Lane* l = ctx.cur; l->wkind = kind; l->wfile = f; l->wline = line; l->wobj = obj; }

static void fiber_main() {
#ifdef EMU_ASAN
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  for (;;) {
    Lane* l = ctx.cur;
    fence_acq_rel(&S->ts_start, false);
    S->k->thunk(S->args);
    fence_acq_rel(&S->ts_done, true);
    l = ctx.cur; Fiber* me = l->fib; Warp* w = l->warp; u32 bit = 1u << l->lane;
    for (auto& s : w->slot) if (unlikely(s.arrived && (s.mask & bit)))
      fail("thread exited while lanes wait for it in %s at line %d", kind_name(s.op), s.line);
    if (unlikely(S->bars[0].arrived)) fail("thread exited while others wait in __syncthreads at line %d", S->bars[0].line);
    l->exited = 1; w->alive &= ~bit;
    if (--S->alive == 0) { fiber_put(me); swap_to(me, &S->main, S->tsan_main); continue; }
    Lane* nx = pick();
    ctx.cur = nx;
#ifdef EMU_TSAN
    if (!nx->fib) nx->fib = fiber_get(nx);
#else
    if (!nx->fib) { nx->fib = me; continue; }      // not started yet: run it right here
#endif
    fiber_put(me);
    swap_to(me, nx->fib, tsan_of(nx));
  }
}

// ---- warp collectives and block barriers ------------------------------------------------------
bool coll_arrive(u32 mask, int op, const char* f, int line) {
  Lane* l = ctx.cur; Warp* w = l->warp; u32 bit = 1u << l->lane;
  Slot* s = &w->slot[0];
  if (unlikely(!(mask & bit))) fail("%s at %s:%d: own lane not in mask 0x%x", kind_name(op), f, line, mask);
  if (unlikely(w->pending && !(s->arrived && s->mask == mask))) {
    Slot* e = nullptr; s = nullptr;
    for (auto& x : w->slot) { if (x.arrived && x.mask == mask) { s = &x; break; } if (!x.arrived) e = &x; }
    if (!s) s = e;
    if (!s) fail("too many concurrent warp collectives");
  }
  if (!s->arrived) { s->mask = mask; s->op = op; s->line = line; w->pending++; }
  else if (unlikely(s->op != op || s->line != line))
    fail("warp divergence: %s at %s:%d while other lanes are in %s at line %d", kind_name(op), f, line, kind_name(s->op), s->line);
  s->arrived |= bit;
  if (s->arrived == mask) {
    s->arrived = 0; w->pending--; S->st.collectives++;
    if (mask & ~bit) set_ready(w, mask & ~bit);
    return true;
  }
  wait_info(op, f, line, 0);
  block();
  return false;
}
u64 shfl(u32 mask, u64 v, u32 src, const char* f, int line) {
  Lane* l = ctx.cur; Warp* w = l->warp;
  w->xv[l->lane] = v; w->xs[l->lane] = src;
  if (coll_arrive(mask, OP_SHFL, f, line)) {
    for (u32 m = mask; m; m &= m - 1) {
      u32 i = __builtin_ctz(m);
      if (unlikely(!(mask >> w->xs[i] & 1))) fail("shuffle at %s:%d: lane %u reads inactive lane %u", f, line, i, w->xs[i]);
      w->xr[i] = w->xv[w->xs[i]];
    }
  }
  return w->xr[l->lane];
}
u32 vote(u32 mask, bool p, const char* f, int line) {
  Lane* l = ctx.cur; Warp* w = l->warp;
  w->xv[l->lane] = p;
  if (coll_arrive(mask, OP_VOTE, f, line)) {
    u32 r = 0; for (u32 m = mask; m; m &= m - 1) { u32 i = __builtin_ctz(m); r |= (u32)w->xv[i] << i; }
    for (u32 m = mask; m; m &= m - 1) w->xr[__builtin_ctz(m)] = r;
  }
  return (u32)w->xr[l->lane];
}
void bar_sync(u32 id, u32 count, bool wait, const char* f, int line) {
  if (id >= 16) fail("barrier id %u", id);
  Bar& b = S->bars[id]; Lane* l = ctx.cur;
  u32 want = count ? count : S->n;
  if (unlikely(!count && S->alive != S->n)) fail("__syncthreads at %s:%d after %u thread(s) exited", f, line, S->n - S->alive);
  if (unlikely(count % 32)) fail("bar.sync count %u is not a multiple of the warp size", count);
  if (!b.arrived) { b.count = want; b.line = line; }
  else if (unlikely(b.count != want)) fail("barrier %u: counts %u and %u", id, b.count, want);
  else if (unlikely(id == 0 && b.line != line)) fail("divergent barrier: __syncthreads at %s:%d while others wait at line %d", f, line, b.line);
  char* ts = &b.tsan[b.gen & 1];
  fence_acq_rel(ts, true);
  if (++b.arrived == want) {
    b.arrived = 0; b.gen++;
    for (u32 i = 0; i < S->nw; i++) if (b.wait[i]) { set_ready(&S->warps[i], b.wait[i]); b.wait[i] = 0; }
    if (S->cfg.order == 2 && wait) yield();
  } else if (wait) { b.wait[l->warp->id] |= 1u << l->lane; wait_info(OP_BAR, f, line, id); block(); }
  if (wait) fence_acq_rel(ts, false);
}

// ---- memory ------------------------------------------------------------------------------------
u8* smem_ptr(u32 addr, u32 n, const char* what) {
  if (unlikely(addr < SMEM_BASE || addr - SMEM_BASE + n > ctx.smem_size))
    fail("%s: shared address 0x%x +%u outside the %u bytes of dynamic shared memory", what, addr, n, ctx.smem_size);
  return ctx.smem + (addr - SMEM_BASE);
}
void* static_smem(const void* key, size_t bytes, size_t align) {
  for (auto& kv : S->static_keys) if (kv.first == key) return kv.second;
  size_t o = (S->static_used + align - 1) & ~(align - 1);
  if (o + bytes > 48 * 1024) fail("static shared memory exceeds 48 KB");
  S->static_used = o + bytes + 64;                 // gap between arrays
  u8* p = S->statics + o;
#ifdef EMU_ASAN
  __asan_unpoison_memory_region(p, bytes);
#endif
  S->static_keys.push_back({key, p});
  return p;
}
void* device_alloc(size_t n) {
  size_t pad = (n + 15) & ~size_t(15), m = (pad + 4095) & ~size_t(4095);
  u8* p = (u8*)mmap(nullptr, m + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  mprotect(p, 4096, PROT_NONE); mprotect(p + 4096 + m, 4096, PROT_NONE);
  memset(p + 4096, 0xff, m);
  u8* r = p + 4096 + (m - pad);                    // end of the buffer touches the guard page
#ifdef EMU_ASAN
  __asan_poison_memory_region(p + 4096, m - pad); if (pad > n) __asan_poison_memory_region(r + n, pad - n);
#endif
  return r;
}
void device_free(void*) {}                         // prototype: leaked

// cp.async: executed at issue, as late as legal, or a random mixture
static void cp_run(const CpOp& o) {
  u8* d = smem_ptr(o.dst, o.n, "cp.async");
  if (o.nsrc) { san_access(o.src, o.nsrc, false); memcpy(d, o.src, o.nsrc); }
  if (o.nsrc < o.n) memset(d + o.nsrc, 0, o.n - o.nsrc);
  san_access(d, o.n, true);
}
void cp_async(u32 dst, const void* src, u32 n, u32 nsrc) {
  if (unlikely(dst % n || (nsrc && (uintptr_t)src % n))) fail("cp.async: misaligned address (dst 0x%x, src %p)", dst, src);
  smem_ptr(dst, n, "cp.async");
  CpOp o{dst, n, nsrc, src};
  if (likely(S->cfg.async == 0) || (S->cfg.async == 2 && rnd(2))) cp_run(o);
  else S->cpq[ctx.cur - S->lanes].ops.push_back(o);
}
void cp_commit() { if (S->cfg.async) { auto& q = S->cpq[ctx.cur - S->lanes]; q.ends.push_back((u32)q.ops.size()); } }
void cp_wait(u32 keep) {
  if (!S->cfg.async) return;
  auto& q = S->cpq[ctx.cur - S->lanes];
  if (q.ends.size() <= keep) return;
  u32 g = (u32)q.ends.size() - keep, e = q.ends[g - 1];
  for (u32 i = 0; i < e; i++) cp_run(q.ops[i]);
  q.ops.drop_front(e); q.ends.drop_front(g);
  for (auto& x : q.ends) x -= e;
}

// ---- ldmatrix / mma.sync ----------------------------------------------------------------------
struct LdArg { u32* r; const u32* addr; };
static void ld_exec(Warp* w, int n, bool trans) {
  const LdArg* a[32]; for (int i = 0; i < 32; i++) a[i] = (const LdArg*)w->xp[i];
  for (int q = 0; q < n; q++) for (int j = 0; j < 4; j++) {
    u32 row[8][4], banks = 0;
    for (int r = 0; r < 8; r++) {
      u32 ad = a[j * 8 + r]->addr[q];
      if (unlikely(ad % 16)) fail("ldmatrix: lane %d: address 0x%x not 16-byte aligned", j * 8 + r, ad);
      banks |= 1u << (ad >> 4 & 7); u8* p = smem_ptr(ad, 16, "ldmatrix"); san_access(p, 16, false); memcpy(row[r], p, 16);
    }
    S->st.ld_rows += 8; S->st.ld_conflict += 8 - __builtin_popcount(banks);
    if (!trans) for (int l = 0; l < 32; l++) a[l]->r[q * 4 + j] = row[l >> 2][l & 3];
    else for (int l = 0; l < 32; l++) {
      int c = l >> 2, t = 2 * (l & 3), sh = 16 * (c & 1);
      a[l]->r[q * 4 + j] = (row[t][c >> 1] >> sh & 0xffff) | (row[t + 1][c >> 1] >> sh & 0xffff) << 16;
    }
  }
}
void ldmatrix(u32* r, const u32* addr, int n, bool trans, const char* f, int line) {
  int step = batch ? n : 1;
  for (int i = 0; i < n; i += step) {
    LdArg a{r + 4 * i, addr + i}; Warp* w = ctx.cur->warp;
    w->xp[ctx.cur->lane] = &a;
    if (coll_arrive(~0u, trans ? OP_LDSM_T : OP_LDSM, f, line)) ld_exec(w, step, trans);
  }
}
// Row-major product C[R][N] += A[R][16] * B[16][N] in fp32, N a multiple of 8; a broadcast of one
// A element times a row of B. Vector extensions lower to whatever the host has (SSE2 upwards).
typedef float v8 __attribute__((vector_size(32)));
typedef float v16 __attribute__((vector_size(64)));
template <class V, int G> static inline void gemm_rows(float* C, const float* A, const float* B, int ld, int cols) {
  constexpr int W = sizeof(V) / 4;
  for (int c = 0; c < cols; c += W) {
    V acc[G];
    for (int r = 0; r < G; r++) memcpy(&acc[r], C + r * ld + c, sizeof(V));
#pragma GCC unroll 16
    for (int k = 0; k < 16; k++) {
      V b; memcpy(&b, B + k * ld + c, sizeof(V));
#pragma GCC unroll 8
      for (int r = 0; r < G; r++) acc[r] += A[r * 16 + k] * b;
    }
    for (int r = 0; r < G; r++) memcpy(C + r * ld + c, &acc[r], sizeof(V));
  }
}
static void gemm16(float* C, const float* A, const float* B, int rows, int ld, int cols) {
#if defined(__AVX512F__)
  if (cols % 16 == 0) { for (int r = 0; r < rows; r += 8) gemm_rows<v16, 8>(C + r * ld, A + r * 16, B, ld, cols); return; }
#endif
#if defined(__AVX2__)
  for (int r = 0; r < rows; r += 8) gemm_rows<v8, 8>(C + r * ld, A + r * 16, B, ld, cols);
#else
  typedef float v4 __attribute__((vector_size(16)));
  for (int r = 0; r < rows; r += 8) gemm_rows<v4, 8>(C + r * ld, A + r * 16, B, ld, cols);
#endif
}
struct MmaArg { float* d; const u32* a; const u32* b; };
static __thread Half half_kind;

static inline float lo16(u32 v) { return half_kind == Half::F16 ? f16_to_f32((u16)v) : __uint_as_float(v << 16); }
static inline float hi16(u32 v) { return half_kind == Half::F16 ? f16_to_f32((u16)(v >> 16)) : __uint_as_float(v & 0xffff0000u); }
static inline void put2(float* p, u32 v) { p[0] = lo16(v); p[1] = hi16(v); }
static void mma_exec(Warp* w, int mi, int nj) {
  if (mi > 8 || nj > 16) fail("mma tile too large");
  static __thread float A[128 * 16] __attribute__((aligned(64))), B[16 * 128] __attribute__((aligned(64))), C[128 * 128] __attribute__((aligned(64)));
  int N = nj * 8;
  for (int l = 0; l < 32; l++) {
    const MmaArg& x = *(const MmaArg*)w->xp[l]; int g = l >> 2, t = l & 3;
    for (int i = 0; i < mi; i++) {                 // a0 (g, 2t) a1 (g+8, 2t) a2 (g, 2t+8) a3 (g+8, 2t+8)
      const u32* a = x.a + 4 * i; float* p = A + (i * 16 + g) * 16 + 2 * t;
      put2(p, a[0]); put2(p + 128, a[1]); put2(p + 8, a[2]); put2(p + 136, a[3]);
    }
    for (int j = 0; j < nj; j++) {                 // b0 (k 2t, n g) b1 (k 2t+8, n g)
      const u32* b = x.b + 2 * j; float* p = B + 2 * t * N + j * 8 + g;
      p[0] = lo16(b[0]); p[N] = hi16(b[0]); p[8 * N] = lo16(b[1]); p[9 * N] = hi16(b[1]);
    }
    for (int i = 0; i < mi; i++) for (int j = 0; j < nj; j++) {   // c0,c1 (g, 2t) c2,c3 (g+8, 2t)
      const float* d = x.d + (i * nj + j) * 4; float* p = C + (i * 16 + g) * N + j * 8 + 2 * t;
      memcpy(p, d, 8); memcpy(p + 8 * N, d + 2, 8);
    }
  }
  gemm16(C, A, B, mi * 16, N, N);
  for (int l = 0; l < 32; l++) {
    const MmaArg& x = *(const MmaArg*)w->xp[l]; int g = l >> 2, t = l & 3;
    for (int i = 0; i < mi; i++) for (int j = 0; j < nj; j++) {
      float* d = x.d + (i * nj + j) * 4; const float* p = C + (i * 16 + g) * N + j * 8 + 2 * t;
      memcpy(d, p, 8); memcpy(d + 2, p + 8 * N, 8);
    }
  }
}
void mma(float* d, const u32* a, const u32* b, int mi, int nj, Half h, const char* f, int line) {
  Warp* w = ctx.cur->warp; u32 l = ctx.cur->lane;
  if (batch) {
    MmaArg x{d, a, b}; w->xp[l] = &x;
    if (coll_arrive(~0u, OP_MMA, f, line)) { half_kind = h; mma_exec(w, mi, nj); }
  } else for (int i = 0; i < mi; i++) for (int j = 0; j < nj; j++) {
    MmaArg x{d + (i * nj + j) * 4, a + 4 * i, b + 2 * j}; w->xp[l] = &x;
    if (coll_arrive(~0u, OP_MMA, f, line)) { half_kind = h; mma_exec(w, 1, 1); }
  }
}

struct MsArg { float* d; const u32* aa; const u32* ba; u32 a[8][4], b[8][4]; };
void mma_smem(float* d, const u32* aa, const u32* ba, int mi, int nj, Half h, const char* f, int line) {
  Warp* w = ctx.cur->warp; MsArg x; x.d = d; x.aa = aa; x.ba = ba; w->xp[ctx.cur->lane] = &x;
  if (!coll_arrive(~0u, OP_MMA, f, line)) return;
  half_kind = h;
  MsArg* p[32]; LdArg la[32]; MmaArg m[32];
  for (int i = 0; i < 32; i++) { p[i] = (MsArg*)w->xp[i]; la[i] = {p[i]->a[0], p[i]->aa}; w->xp[i] = &la[i]; }
  ld_exec(w, mi, false);
  for (int i = 0; i < 32; i++) la[i] = {p[i]->b[0], p[i]->ba};
  ld_exec(w, nj / 2, false);
  for (int i = 0; i < 32; i++) { m[i] = {p[i]->d, p[i]->a[0], p[i]->b[0]}; w->xp[i] = &m[i]; }
  mma_exec(w, mi, nj);
}

// ---- sm_90: mbarrier, TMA, wgmma --------------------------------------------------------------
// mbarrier word: pending 20 | expected 20 | tx-count 20 (biased) | phase 1 | magic 3
struct MBar { u64 pending : 20, expected : 20, tx : 20, phase : 1, magic : 3; };
static constexpr u64 TX0 = 1 << 19, MB_MAGIC = 5;
static MBar* mbar_at(u32 bar, bool init, const char* what) {
  if (bar % 8) fail("%s: mbarrier address 0x%x not 8-byte aligned", what, bar);
  MBar* b = (MBar*)smem_ptr(bar, 8, what);
  if (!init && (b->magic != MB_MAGIC || b->pending > b->expected)) fail("%s: no initialised mbarrier at smem 0x%x", what, bar);
  return b;
}
static void mbar_check(u32 bar, MBar* b) {
  if (b->pending || b->tx != TX0) return;
  b->phase ^= 1; b->pending = b->expected;
  for (u32 i = 0; i < S->n; i++) { Lane& x = S->lanes[i]; if (!x.exited && x.wkind == OP_MBAR && x.wobj == bar) { x.wobj = 0; set_ready(x.warp, 1u << x.lane); } }
}
void mbar_init(u32 bar, u32 count) { S->hopper = true; MBar* b = mbar_at(bar, true, "mbarrier.init"); *b = MBar{count, count, TX0, 0, MB_MAGIC}; }
void mbar_arrive(u32 bar, u32 tx, bool) {
  MBar* b = mbar_at(bar, false, "mbarrier.arrive");
  fence_acq_rel(b, true);
  if (!b->pending) fail("mbarrier 0x%x: more arrivals than its count %u in one phase", bar, (u32)b->expected);
  b->tx += tx; b->pending--; mbar_check(bar, b);
}
bool mbar_try_wait(u32 bar, u32 parity, const char* f, int line) {
  MBar* b = mbar_at(bar, false, "mbarrier.try_wait");
  if (parity > 1) fail("mbarrier.try_wait: parity %u", parity);
  if (b->phase == parity) {                        // that phase has not completed
    wait_info(OP_MBAR, f, line, bar); block(); ctx.cur->wkind = 0;
    if (b->phase == parity) return false;
  }
  fence_acq_rel(b, false);
  return true;
}
const char* tensor_map_encode(void* map, int rank, int esz, void* base, const u64* dims, const u64* strides, const u32* box, int swz) {
  TensorMapHost m{}; m.magic = 0x7e4504a9; m.rank = rank; m.esz = esz; m.swizzle = swz; m.base = (u64)base;
  if (rank < 1 || rank > 5) return "rank"; if ((u64)base % 16) return "base not 16-byte aligned"; if ((uintptr_t)map % 64) return "map not 64-byte aligned";
  for (int i = 0; i < rank; i++) {
    m.dim[i] = (u32)dims[i]; m.box[i] = (u16)box[i];
    if (!dims[i] || dims[i] >> 32) return "dimension"; if (!box[i] || box[i] > 256) return "box dimension not in 1..256";
    if (i + 1 < rank) { m.stride[i] = strides[i]; if (strides[i] % 16 || strides[i] >> 40) return "stride not a multiple of 16"; }
  }
  u32 inner = box[0] * esz;
  if (inner % 16) return "inner box bytes not a multiple of 16";
  if (swz && inner > (u32)swz) return "inner box larger than the swizzle span";
  if (swz && inner != (u32)swz) return "emulator: inner box must equal the swizzle span";
  memcpy(map, &m, sizeof m); return nullptr;
}
static inline u32 swizzle(u32 a, u32 span) { return span == 128 ? a ^ (a >> 7 & 7) << 4 : span == 64 ? a ^ (a >> 7 & 3) << 4 : span == 32 ? a ^ (a >> 7 & 1) << 4 : a; }
// Attribute accesses of the copy engine (0) and the tensor cores (1) to TSan threads of their own.
static void async_enter(int e, const void* issue) {
#ifdef EMU_TSAN
  __tsan_switch_to_fiber(S->tsan_async[e], __tsan_switch_to_fiber_no_sync);
#endif
  fence_acq_rel(issue, false); (void)e;
}
static void async_leave(const void* done) {
  fence_acq_rel(done, true);
#ifdef EMU_TSAN
  __tsan_switch_to_fiber(tsan_of(ctx.cur), __tsan_switch_to_fiber_no_sync);
#endif
}
// What the async proxy has been shown: updated by the copy engine and by fence.proxy.async; starts as the fill.
static u8* shadow_at(u32 a) { if (!S->shadow_ok) { memset(S->shadow, 0xff, ctx.smem_size); S->shadow_ok = true; } return S->shadow + (a - SMEM_BASE); }
static void tma_run(const Tma& t) {
  const TensorMapHost& m = t.map; u32 inner = m.box[0] * m.esz, rows = 1;
  for (int i = 1; i < m.rank; i++) rows *= m.box[i];
  async_enter(0, &S->ts_tma);
  for (u32 r = 0; r < rows; r++) {
    u64 off = 0; bool in = true; u32 q = r;
    for (int i = 1; i < m.rank; i++) { long c = (long)t.c[i] + q % m.box[i]; q /= m.box[i]; if (c < 0 || c >= (long)m.dim[i]) in = false; else off += c * m.stride[i - 1]; }
    for (u32 b = 0; b < inner; b += 16) {
      u32 pa = swizzle(t.dst + r * inner + b, m.swizzle); u8* d = smem_ptr(pa, 16, "TMA load");
      long cb = (long)t.c[0] + b / m.esz;
      if (in && cb >= 0 && cb + 16 / m.esz <= (long)m.dim[0]) memcpy(d, (u8*)m.base + off + cb * m.esz, 16);
      else for (u32 e = 0; e < 16; e += m.esz) {
        long c = (long)t.c[0] + (b + e) / m.esz; bool ok = in && c >= 0 && c < (long)m.dim[0];
        if (ok) memcpy(d + e, (u8*)m.base + off + c * m.esz, m.esz); else memset(d + e, 0, m.esz);
      }
      san_access(d, 16, true);
      memcpy(shadow_at(pa), d, 16);
    }
  }
  MBar* b = mbar_at(t.bar, false, "TMA complete_tx");
  b->tx -= inner * rows;
  async_leave(b);
  mbar_check(t.bar, b);
}
static bool tma_complete_one(bool random) {
  if (!S->ntma) return false;
  u32 i = random ? rnd(S->ntma) : 0; Tma t; memcpy(&t, &S->tma[i], sizeof t); S->ntma--; for (; i < S->ntma; i++) memcpy(&S->tma[i], &S->tma[i + 1], sizeof t); tma_run(t); return true;
}
void tma_load(u32 dst, const void* map, u32 bar, const int* c, int rank) {
  const TensorMapHost* m = (const TensorMapHost*)map;
  if (m->magic != 0x7e4504a9) fail("TMA: not a tensor map"); if (m->rank != rank) fail("TMA: map has rank %d, instruction %d", m->rank, rank);
  if (dst % 128) fail("TMA: shared address 0x%x not 128-byte aligned", dst);
  mbar_at(bar, false, "TMA load");
  fence_acq_rel(&S->ts_tma, true);
  Tma t; memset(&t, 0, sizeof t); t.dst = dst; t.bar = bar; memcpy(&t.map, m, sizeof *m); for (int i = 0; i < rank; i++) t.c[i] = c[i];
  if (S->cfg.async == 0 || (S->cfg.async == 2 && rnd(3) == 0)) tma_run(t); else { if (S->ntma == 64) tma_complete_one(false); memcpy(&S->tma[S->ntma++], &t, sizeof t); }
}
void fence_proxy_async() { memcpy(S->shadow, ctx.smem, ctx.smem_size); S->shadow_ok = true; }

// 16-byte chunk (8 bf16) of an operand addressed through a descriptor, 128-byte swizzle. K-major: rows of
// mn, 8 k values per chunk; MN-major: rows of k, 8 mn values per chunk. Written to out[i * stride].
static void desc_chunk(u64 d, u32 mn, u32 k, bool mn_major, float* out, int stride) {
  u32 start = (u32)(d & 0x3fff) << 4, lbo = (u32)(d >> 16 & 0x3fff) << 4, sbo = (u32)(d >> 32 & 0x3fff) << 4;
  u32 o = mn_major ? mn / 64 * lbo + mn % 64 * 2 + k % 8 * 128 + k / 8 * sbo : mn % 8 * 128 + mn / 8 * sbo + k * 2;
  u32 a = swizzle(start + o, 128); u8* p = smem_ptr(a, 16, "wgmma operand");
  san_access(p, 16, false);
  if (memcmp(p, shadow_at(a), 16))
    fail("wgmma reads shared address 0x%x written by ordinary stores without fence.proxy.async", a);
  u16 v[8]; memcpy(v, p, 16); for (int i = 0; i < 8; i++) out[i * stride] = __uint_as_float((u32)v[i] << 16);
}
static void wg_exec(WgOp& o, u32 gi) {
  static __thread float A[64 * 16] __attribute__((aligned(64))), B[16 * 256] __attribute__((aligned(64))), C[64 * 256] __attribute__((aligned(64)));
  async_enter(1, &S->ts_wg[gi]);
  if (o.ta) for (u32 k = 0; k < 16; k++) for (u32 m = 0; m < 64; m += 8) desc_chunk(o.da, m, k, true, A + m * 16 + k, 16);
  else for (u32 m = 0; m < 64; m++) for (u32 k = 0; k < 16; k += 8) desc_chunk(o.da, m, k, false, A + m * 16 + k, 1);
  if (o.tb) for (u32 k = 0; k < 16; k++) for (u32 n = 0; n < (u32)o.n; n += 8) desc_chunk(o.db, n, k, true, B + k * o.n + n, 1);
  else for (u32 n = 0; n < (u32)o.n; n++) for (u32 k = 0; k < 16; k += 8) desc_chunk(o.db, n, k, false, B + k * o.n + n, o.n);
  async_leave(&S->ts_wgdone[gi]);
  // warp w of the group holds rows 16w..16w+15, within it the m16n8 accumulator layout per 8 columns
  for (int l = 0; l < 128; l++) { float* c = C + ((l >> 5) * 16 + (l >> 2 & 7)) * o.n + 2 * (l & 3);
    for (int j = 0; j < o.n / 8; j++) if (o.scale) { memcpy(c + 8 * j, o.d[l] + 4 * j, 8); memcpy(c + 8 * o.n + 8 * j, o.d[l] + 4 * j + 2, 8); }
      else { memset(c + 8 * j, 0, 8); memset(c + 8 * o.n + 8 * j, 0, 8); } }
  gemm16(C, A, B, 64, o.n, o.n);
  for (int l = 0; l < 128; l++) { float* c = C + ((l >> 5) * 16 + (l >> 2 & 7)) * o.n + 2 * (l & 3);
    for (int j = 0; j < o.n / 8; j++) { memcpy(o.d[l] + 4 * j, c + 8 * j, 8); memcpy(o.d[l] + 4 * j + 2, c + 8 * o.n + 8 * j, 8); } }
  o.done = 1;
}
static WgGroup& wg_of(u32& idx) { u32 w = ctx.cur->warp->id; idx = (w & 3) * 32 + ctx.cur->lane; return S->wg[w >> 2]; }
void wg_fence() { u32 i; wg_of(i).fenced[i] = 1; }
void wgmma(float* d, int n, u64 da, u64 db, int ta, int tb, int sc, const char* f, int line) {
  u32 i; WgGroup& g = wg_of(i); Lane* l = ctx.cur;
  if ((l->warp->id | 3) >= S->nw) fail("wgmma at %s:%d: warpgroup is not complete", f, line);
  if (!g.fenced[i]) fail("wgmma at %s:%d without wgmma.fence since the last wait", f, line);
  for (u64 x : {da, db}) { if (x >> 62 != 1) fail("wgmma at %s:%d: descriptor swizzle mode %d (emulated: 128-byte)", f, line, (int)(x >> 62));
    if (x >> 49 & 7) fail("wgmma at %s:%d: descriptor base offset not supported", f, line); }
  u32 s = l->wg_issued++;
  if (s == g.ops.n) { g.ops.push_back(WgOp{{}, n, da, db, 0, (u8)ta, (u8)tb, (u8)(sc != 0), 0}); }
  WgOp& o = g.ops[s];
  if (o.da != da || o.db != db || o.scale != (sc != 0)) fail("wgmma at %s:%d: descriptors differ between threads of the warpgroup", f, line);
  o.d[i] = d; o.got++;
  u32 gi = l->warp->id >> 2; fence_acq_rel(&S->ts_wg[gi], true);
  if (o.got == 128) for (u32 w = l->warp->id & ~3u, e = w + 4; w < e; w++) for (int k = 0; k < 32; k++) {
    Lane& x = S->lanes[w * 32 + k]; if (!x.exited && x.wkind == OP_WGWAIT) { x.wkind = 0; set_ready(x.warp, 1u << k); } }
  if (o.got == 128 && (S->cfg.async == 0 || (S->cfg.async == 2 && rnd(3) == 0))) while (g.done <= s) wg_exec(g.ops[g.done++], gi);
}
void wg_commit() { u32 i; WgGroup& g = wg_of(i); Lane* l = ctx.cur; u32 c = l->wg_committed++; if (c == g.ends.n) g.ends.push_back(l->wg_issued); }
void wg_wait(u32 keep, const char* f, int line) {
  u32 i; WgGroup& g = wg_of(i); Lane* l = ctx.cur;
  if (!keep) g.fenced[i] = 0;                      // registers may now be touched: fence before the next wgmma
  if (l->wg_committed <= keep) return;
  u32 need = g.ends[l->wg_committed - keep - 1];
  while (g.done < need) {
    if (g.ops[g.done].got == 128) wg_exec(g.ops[g.done++], l->warp->id >> 2);
    else { wait_info(OP_WGWAIT, f, line, 0); block(); }
  }
  fence_acq_rel(&S->ts_wgdone[l->warp->id >> 2], false);
}

// ---- launch -------------------------------------------------------------------------------------
static void on_segv(int, siginfo_t* si, void*) {
  char b[512]; int n = 0; Lane* l = ctx.cur;
  if (S && S->k && l) {
    const char* where = "";
    for (Fiber* f : S->all) if ((u8*)si->si_addr >= f->lo - 4096 && (u8*)si->si_addr < f->lo) where = " (thread stack overflow)";
    if ((u8*)si->si_addr >= ctx.smem + ctx.smem_size && (u8*)si->si_addr < ctx.smem + ctx.smem_size + 8192) where = " (past the end of dynamic shared memory)";
    n = snprintf(b, sizeof b, "%s: block (%u,%u,%u) thread (%u,%u,%u): invalid access at %p%s\n", S->k->name, ctx.bid.x, ctx.bid.y, ctx.bid.z, l->tid.x, l->tid.y, l->tid.z, si->si_addr, where);
  } else n = snprintf(b, sizeof b, "invalid access at %p\n", si->si_addr);
  fflush(stdout); if (write(2, b, n)) {}
  _exit(139);
}
static void thread_init() {
  S = new Sched(); S->rng = 1; S->shadow = (u8*)malloc(WINDOW);
  u8* a = (u8*)mmap(nullptr, WINDOW + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(a, 4096, PROT_NONE); mprotect(a + 4096 + WINDOW, 4096, PROT_NONE);
  memset(a + 4096, 0xff, WINDOW); S->arena = a + 4096; S->static_used = 48 * 1024; S->statics = (u8*)mmap(nullptr, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#ifdef EMU_TSAN
  S->tsan_main = __tsan_get_current_fiber();
#endif
#if !defined(EMU_ASAN) && !defined(EMU_TSAN)
  static thread_local char alt[32768]; stack_t ss{}; ss.ss_sp = alt; ss.ss_size = sizeof alt; sigaltstack(&ss, nullptr);
  struct sigaction sa{}; sa.sa_sigaction = on_segv; sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &sa, nullptr); sigaction(SIGBUS, &sa, nullptr);
#else
  (void)on_segv;
#endif
}
static void run_block(u64 b) {
  ctx.bid = {u32(b % ctx.gdim.x), u32(b / ctx.gdim.x % ctx.gdim.y), u32(b / ctx.gdim.x / ctx.gdim.y)};
  S->tsan_set = (u32)(b & 3);
  S->alive = S->n; S->wready = S->nw == 32 ? ~0u : (1u << S->nw) - 1; S->rng = (S->cfg.seed + 1) * 0x9e3779b97f4a7c15ull ^ (b + 1) * 0xd1342543de82ef95ull; rnd(2); rnd(2);
  if (S->cfg.order == 2) { for (u32 i = 0; i < 32; i++) { u32 j = rnd(i + 1); S->prio[i] = S->prio[j]; S->prio[j] = (u8)i; } S->uniform = rnd(4) == 0; }
  for (u32 i = 0; i < S->nw; i++) { Warp& w = S->warps[i]; w.alive = w.ready = i * 32 + 32 <= S->n ? ~0u : (1u << S->n % 32) - 1; w.pending = 0; for (auto& s : w.slot) s.arrived = 0; }
  for (u32 i = 0; i < S->n; i++) { Lane& l = S->lanes[i]; l.fib = nullptr; l.exited = 0; l.wkind = 0; l.wobj = 0; }
  for (auto& x : S->bars) { x.arrived = 0; memset(x.wait, 0, sizeof x.wait); }
  if (S->cfg.async) for (u32 i = 0; i < S->n; i++) { S->cpq[i].ops.clear(); S->cpq[i].ends.clear(); }
  S->ntma = 0; S->shadow_ok = false;
  if (S->hopper) { for (auto& g : S->wg) { g.ops.clear(); g.ends.clear(); g.done = 0; memset(g.fenced, 0, sizeof g.fenced); }
    for (u32 i = 0; i < S->n; i++) S->lanes[i].wg_issued = S->lanes[i].wg_committed = 0; }
  S->static_keys.clear();
#ifdef EMU_TSAN
  mmap(S->arena, WINDOW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);  // fresh shadow state
  mmap(S->statics, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
#endif
#ifdef EMU_ASAN
  __asan_unpoison_memory_region(S->statics, S->static_used);
#elif defined(EMU_TSAN)
  S->static_used = 48 * 1024;
#endif
  memset(S->statics, 0xff, S->static_used); S->static_used = 0;
#ifdef EMU_ASAN
  __asan_poison_memory_region(S->statics, 65536);
#endif
  memset(ctx.smem, 0xff, ctx.smem_size);           // NaN: reads of unwritten shared memory show up
  u32 slack = u32(S->arena + WINDOW - ctx.smem - ctx.smem_size);
  u8* tail = ctx.smem + ctx.smem_size;
#ifndef EMU_ASAN
  memset(tail, 0xa5, slack);
#else
  __asan_poison_memory_region(tail, slack);
#endif
  fence_acq_rel(&S->ts_start, true);
  ctx.cur = &S->lanes[0]; Lane* first = pick(); ctx.cur = first; first->fib = fiber_get(first);
  swap_to(&S->main, first->fib, tsan_of(first));
#ifdef EMU_ASAN
  __asan_unpoison_memory_region(tail, slack);
#endif
  S->st.blocks++;
  if (S->failed) { discard_all(); return; }
#ifndef EMU_ASAN
  for (u32 i = 0; i < slack; i++) if (tail[i] != 0xa5) { ctx.cur = &S->lanes[0]; S->failed = true;
    snprintf(S->err, sizeof S->err, "%s: block (%u,%u,%u): write past the end of dynamic shared memory (+%u)", S->k->name, ctx.bid.x, ctx.bid.y, ctx.bid.z, i); break; }
#endif
}
struct Job { const Kernel* k; dim3 g, b; u32 smem; void** args; Config cfg; u64 nblocks; std::atomic<u64> next; std::atomic<bool> failed; char err[4096]; std::mutex m; };
static void work(Job* j) {
  if (!S) thread_init();
  S->cfg = j->cfg; S->k = j->k; S->args = j->args; S->failed = false; S->hopper = true;
  S->n = j->b.x * j->b.y * j->b.z; S->nw = (S->n + 31) / 32; ctx.bdim = {j->b.x, j->b.y, j->b.z}; ctx.gdim = {j->g.x, j->g.y, j->g.z};
  ctx.smem_size = j->smem; ctx.smem = S->arena + WINDOW - ((j->smem + 1023) & ~1023u);
  for (u32 i = 0; i < S->n; i++) { Lane& l = S->lanes[i]; l.tid = {i % j->b.x, i / j->b.x % j->b.y, i / (j->b.x * j->b.y)}; l.lane = i & 31; l.warp = &S->warps[i >> 5]; }
  for (u32 i = 0; i < S->nw; i++) { S->warps[i].id = i; S->warps[i].lanes = &S->lanes[i * 32]; }
#ifdef EMU_TSAN   // created here, not on first use: creation orders the creator's past before the new identity
  for (auto& set : S->tsan_id) for (u32 i = 0; i < S->n; i++) if (!set[i]) set[i] = __tsan_create_fiber(0);
  for (auto& e : S->tsan_async) if (!e) e = __tsan_create_fiber(0);
#endif
  for (;;) {
    u64 b = j->next.fetch_add(1); if (b >= j->nblocks || j->failed) break;
    if (j->cfg.order == 1) b = j->nblocks - 1 - b;
    run_block(b);
    if (S->failed) { std::lock_guard<std::mutex> l(j->m); if (!j->failed) memcpy(j->err, S->err, sizeof j->err); j->failed = true; break; }
  }
  fence_acq_rel(&S->ts_done, false); fence_acq_rel(&S->ts_fail, false);
  ctx.cur = nullptr;
}
struct Pool {
  std::mutex m; std::condition_variable cv, done; std::vector<std::thread> t; Job* job = nullptr; u64 gen = 0; int want = 0, left = 0; std::mutex busy;
  void loop(int id) {
    u64 seen = 0; std::unique_lock<std::mutex> l(m);
    for (;;) { cv.wait(l, [&] { return gen != seen; }); seen = gen; if (id >= want) continue;
      Job* j = job; l.unlock(); work(j); l.lock(); if (--left == 0) done.notify_one(); }
  }
  void run(Job* j, int n) {
    std::unique_lock<std::mutex> b(busy, std::try_to_lock);
    if (!b || n <= 1) { work(j); return; }         // pool taken by another caller: run on this thread only
    { std::lock_guard<std::mutex> l(m); while ((int)t.size() < n - 1) { int id = (int)t.size(); t.emplace_back([=] { loop(id); }); t.back().detach(); }
      job = j; want = left = n - 1; gen++; }
    cv.notify_all(); work(j);
    std::unique_lock<std::mutex> l(m); done.wait(l, [&] { return left == 0; });
  }
};
static std::vector<Kernel>& registry() { static auto* v = new std::vector<Kernel>(); return *v; }
Registrar::Registrar(Kernel k) { registry().push_back(k); }
const char* launch(const Kernel* k, dim3 g, dim3 b, u32 smem, void** args) {
  static Pool* pool = new Pool(); static thread_local Job* j = new Job();
  u64 n = (u64)b.x * b.y * b.z;
  if (!n || n > 1024) return "invalid block size"; if (smem > MAX_SMEM) return "too much dynamic shared memory";
  if (!g.x || !g.y || !g.z || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) return "invalid grid";
  j->k = k; j->g = g; j->b = b; j->smem = smem; j->args = args; j->cfg = config; j->nblocks = (u64)g.x * g.y * g.z; j->next = 0; j->failed = false;
  pool->run(j, (int)((u64)config.threads < j->nblocks ? config.threads : j->nblocks));
  return j->failed ? j->err : nullptr;
}
Stats stats(bool reset) { Stats s = S ? S->st : Stats{}; if (reset && S) S->st = Stats{}; return s; }
}  // namespace emu
int __syncthreads_count(int p, const char* f, int l) {
  static __thread u_int c; __syncthreads(f, l); if (threadIdx.x + threadIdx.y + threadIdx.z == 0) c = 0; __syncthreads(f, l);
  if (p) c++; __syncthreads(f, l); int r = (int)c; __syncthreads(f, l); return r;
}

extern "C" {
const void* emu_function(const char* name) { for (auto& k : emu::registry()) if (!strcmp(k.name, name)) return &k; return nullptr; }
uint32_t emu_arg_count(const void* f) { return ((const emu::Kernel*)f)->nargs; }
uint32_t emu_arg_size(const void* f, uint32_t i) { return ((const emu::Kernel*)f)->arg_size[i]; }
struct emu_schedule { uint32_t threads, order, async, pad; uint64_t seed; };
int32_t emu_launch(const void* f, const uint32_t g[3], const uint32_t b[3], uint32_t smem, void** args, const emu_schedule* s, char* error, size_t len) {
  emu::config = {(int)s->threads, (int)s->order, (int)s->async, s->seed};
  const char* e = emu::launch((const emu::Kernel*)f, {g[0], g[1], g[2]}, {b[0], b[1], b[2]}, smem, args);
  if (!e) return 0;
  snprintf(error, len, "%s", e); return 1;
}
void* emu_alloc(size_t n) { return emu::device_alloc(n); }
void emu_free(void* p, size_t) { emu::device_free(p); }
}
