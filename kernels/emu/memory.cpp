// The emulator's memories. All of it starts as NaN, ends at a page that cannot be touched, and what lies between the
// last byte asked for and that page is a canary.
//
// Shared: dynamic memory ends at its guard page; static arrays have a canary gap on both sides. Device: one mapping for
// each allocation, guarded on both sides.
#include <sys/mman.h>

#include <map>
#include <mutex>

#include "interface.h"
#include "state.h"

namespace emu {

constexpr int CANARY = 0xa5;
constexpr u32 STATIC_GAP = 64;

static u8* map_pages(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<u8*>(memory);
}

// `bytes`, a multiple of a page, between two pages that cannot be touched.
static u8* map_guarded(size_t bytes) {
  u8* memory = map_pages(bytes + 2 * PAGE);
  if (!memory) return nullptr;
  mprotect(memory, PAGE, PROT_NONE);
  mprotect(memory + PAGE + bytes, PAGE, PROT_NONE);
  return memory + PAGE;
}

Core* new_core() {
  Core* fresh = static_cast<Core*>(calloc(1, sizeof(Core) + alignof(Core)));
  if (!fresh) abort();
  fresh = reinterpret_cast<Core*>((reinterpret_cast<uintptr_t>(fresh) + alignof(Core) - 1) & ~(alignof(Core) - 1));
  fresh->dynamic_memory = map_guarded(DYNAMIC_WINDOW);
  fresh->static_memory = map_guarded(STATIC_WINDOW);
  fresh->shadow = map_pages(DYNAMIC_WINDOW);
  if (!fresh->dynamic_memory || !fresh->static_memory || !fresh->shadow) abort();
  return fresh;
}

// ---- shared memory ------------------------------------------------------------------------------------------------

static u8* slack_start() { return ctx.smem + ctx.smem_size; }
static size_t slack_bytes() { return static_cast<size_t>(core->dynamic_memory + DYNAMIC_WINDOW - slack_start()); }

#if defined(EMU_TSAN)
// Fresh pages have fresh shadow state: the block before this one used the same addresses.
static void renew(u8* memory, size_t bytes) {
  mmap(memory, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}
#else
static void renew(u8*, size_t) {}
#endif

void clear_shared_memory() {
  renew(core->dynamic_memory, DYNAMIC_WINDOW);
  renew(core->static_memory, STATIC_WINDOW);
  unpoison(core->dynamic_memory, DYNAMIC_WINDOW);
  fill_bytes(ctx.smem, POISON, ctx.smem_size);
  fill_bytes(slack_start(), CANARY, slack_bytes());
  poison(slack_start(), slack_bytes());
  core->statics.clear();
  core->static_used = 0;
  poison(core->static_memory, STATIC_WINDOW);
  core->shadow_valid = core->shadow_late = false;
  if (core->reading) fill_bytes(core->readers, 0, sizeof core->readers);
  core->reading = 0;
}

void* static_smem(const void* key, size_t bytes, size_t align) {
  for (const StaticArray& array : core->statics) {
    if (array.key == key) return core->static_memory + array.start;
  }
  const u32 mask = static_cast<u32>(align) - 1, size = static_cast<u32>(bytes);
  const u32 start = (core->static_used + STATIC_GAP + mask) & ~mask;
  if (bytes > MAX_STATIC_SHARED || start + size + STATIC_GAP > MAX_STATIC_SHARED + 4096) {
    fail("static shared memory exceeds 48 KB");
  }
  unpoison(core->static_memory + core->static_used, start + size + STATIC_GAP - core->static_used);
  fill_bytes(core->static_memory + core->static_used, CANARY, start - core->static_used);
  fill_bytes(core->static_memory + start, POISON, size);
  fill_bytes(core->static_memory + start + size, CANARY, STATIC_GAP);
  poison(core->static_memory + core->static_used, start - core->static_used);
  poison(core->static_memory + start + size, STATIC_GAP);
  core->static_used = start + size;
  core->statics.push({key, start, size});
  return core->static_memory + start;
}

#if defined(EMU_ASAN)
const char* shared_memory_damage() { return nullptr; }  // canaries are poisoned: the access itself is reported
#else
static bool is_canary(const u8* p, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    if (p[i] != CANARY) return false;
  }
  return true;
}

const char* shared_memory_damage() {
  if (!is_canary(slack_start(), slack_bytes())) return "write past the end of dynamic shared memory";
  for (const StaticArray& array : core->statics) {
    const u8* start = core->static_memory + array.start;
    if (!is_canary(start + array.bytes, STATIC_GAP)) return "write past the end of a static shared array";
    if (!is_canary(start - STATIC_GAP, STATIC_GAP)) return "write before the start of a static shared array";
  }
  return nullptr;
}
#endif

u8* shared_ptr(u32 address, u32 bytes, const char* what) {
  if (EMU_LIKELY(address >= DYNAMIC_BASE && address - DYNAMIC_BASE + bytes <= ctx.smem_size)) {
    return ctx.smem + (address - DYNAMIC_BASE);
  }
  for (const StaticArray& array : core->statics) {
    const u32 start = STATIC_BASE + array.start;
    const bool inside = address >= start && address - start + bytes <= array.bytes;
    if (inside) return core->static_memory + (address - STATIC_BASE);
  }
  fail("%s: shared address 0x%x, %u bytes, is outside the block's shared memory (%u bytes from 0x%x)", what, address,
       bytes, ctx.smem_size, DYNAMIC_BASE);
}

u32 smem_u32(const void* pointer) {
  const u8* p = static_cast<const u8*>(pointer);
  // One past the end is an address that may be formed.
  if (p >= ctx.smem && p <= ctx.smem + ctx.smem_size) return DYNAMIC_BASE + static_cast<u32>(p - ctx.smem);
  if (p >= core->static_memory && p < core->static_memory + STATIC_WINDOW) {
    return STATIC_BASE + static_cast<u32>(p - core->static_memory);
  }
  fail("smem_u32: %p does not point into shared memory", pointer);
}

// ---- device memory ------------------------------------------------------------------------------------------------

struct Allocation {
  size_t bytes, slack;  // slack: between the last byte and the guard page, when the size is no multiple of 16
};
struct Allocations {
  std::mutex lock;
  std::map<const u8*, Allocation> all;
  size_t with_slack = 0;
};
static Allocations& allocations() {
  static Allocations* const held = new Allocations;  // never destroyed: threads may outlive static objects
  return *held;
}

// A NaN in every 16-bit and 32-bit format, different at neighbouring places: copying slack to slack does not hide.
static u8 slack_byte(const u8* p) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(p);
  return at & 1 ? 0xff : static_cast<u8>(0x81 + (at * 0x9e3779b97f4a7c15ull >> 57) % 0x7e);
}
static bool slack_is_whole(const u8* start, const Allocation& allocation) {
#if defined(EMU_ASAN)
  return true;  // poisoned as well
#endif
  for (const u8* p = start + allocation.bytes; p < start + allocation.bytes + allocation.slack; ++p) {
    if (*p != slack_byte(p)) return false;
  }
  return true;
}

// Checks the allocations that the launch's arguments point into.
const char* device_memory_damage(const Kernel* kernel, void** args, char* text, size_t length) {
  Allocations& held = allocations();
  std::lock_guard<std::mutex> locked(held.lock);
  if (!held.with_slack) return nullptr;
  for (u32 i = 0; i < kernel->arg_count; ++i) {
    for (u32 at = 0; at + sizeof(void*) <= kernel->arg_size[i]; at += sizeof(void*)) {
      const u8* pointer;
      memcpy(&pointer, static_cast<const u8*>(args[i]) + at, sizeof pointer);
      auto next = held.all.upper_bound(pointer);
      if (next == held.all.begin()) continue;
      const auto& [start, allocation] = *--next;
      if (pointer >= start + allocation.bytes || slack_is_whole(start, allocation)) continue;
      snprintf(text, length, "%s: write past the end of a buffer of %zu bytes (argument %u)", kernel->name,
               allocation.bytes, i);
      return text;
    }
  }
  return nullptr;
}

}  // namespace emu

extern "C" void* emu_alloc(size_t bytes) {
  using namespace emu;
  const size_t pages = (bytes + PAGE - 1) / PAGE * PAGE;
  u8* memory = map_guarded(pages ? pages : PAGE);
  if (!memory) return nullptr;
  u8* end = memory + (pages ? pages : PAGE);
  u8* start = reinterpret_cast<u8*>(reinterpret_cast<uintptr_t>(end - bytes) & ~uintptr_t{15});
  memset(start, POISON, bytes);
  const Allocation allocation{bytes, static_cast<size_t>(end - start) - bytes};
  for (u8* p = start + bytes; p < end; ++p) *p = slack_byte(p);
  poison(memory, static_cast<size_t>(start - memory));
  poison(start + bytes, allocation.slack);
  Allocations& held = allocations();
  std::lock_guard<std::mutex> locked(held.lock);
  held.all[start] = allocation;
  held.with_slack += allocation.slack != 0;
  return start;
}

extern "C" void emu_free(void* pointer, size_t bytes) {
  using namespace emu;
  if (!pointer) return;
  u8* start = static_cast<u8*>(pointer);
  Allocations& held = allocations();
  std::lock_guard<std::mutex> locked(held.lock);
  const auto found = held.all.find(start);
  if (found == held.all.end() || found->second.bytes != bytes) {
    fprintf(stderr, "emu_free: %p is not an allocation of %zu bytes\n", pointer, bytes);
    abort();
  }
  const Allocation allocation = found->second;
  u8* end = start + bytes + allocation.slack;
  unpoison(start + bytes, allocation.slack);
  if (!slack_is_whole(start, allocation)) {
    fprintf(stderr, "emu_free: something wrote past the end of a buffer of %zu bytes\n", bytes);
    abort();
  }
  held.all.erase(found);
  held.with_slack -= allocation.slack != 0;
  u8* memory = reinterpret_cast<u8*>(reinterpret_cast<uintptr_t>(start) & ~uintptr_t{PAGE - 1});
  if (memory == end) memory -= PAGE;  // zero bytes: the allocation starts at its own guard
  unpoison(memory, static_cast<size_t>(end - memory));
  munmap(memory - PAGE, static_cast<size_t>(end - memory) + 2 * PAGE);
}
