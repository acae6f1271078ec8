// The copy engine (TMA): tensor maps, tiled loads that complete on an mbarrier, tiled stores in groups; and the check
// of the async proxy.
//
// Loads sit in a queue and finish at issue, when no thread can run, or at random points in random order. Stores read
// shared memory at issue, when the wait that requires it is reached, or either at random.
#include "state.h"

namespace emu {

constexpr u32 MAP_MAGIC = 0x7e4504a9;

// ---- tensor maps --------------------------------------------------------------------------------------------------

static const char* check_map(const HostTensorMap& map, const u64* dims, const u64* strides, const u32* box) {
  if (map.base % 16) return "the base address is not a multiple of 16";
  for (int i = 0; i < map.rank; ++i) {
    if (!dims[i] || dims[i] >> 32) return "a dimension is not in 1 .. 2^32 - 1";
    if (!box[i] || box[i] > 256) return "a box dimension is not in 1 .. 256";
    if (i + 1 < map.rank && (strides[i] % 16 || strides[i] >> 40)) return "a stride is not a multiple of 16 below 2^40";
  }
  const u32 inner = box[0] * map.element_bytes;
  if (inner % 16) return "the inner box is not a multiple of 16 bytes";
  if (map.swizzle && inner != map.swizzle) return "the inner box must be as wide as the swizzle";
  return nullptr;
}

// Strides in bytes, of dimensions 1 and up. Returns what is wrong, or null.
const char* encode_tensor_map(void* to, int rank, int element_bytes, void* base, const u64* dims, const u64* strides,
                              const u32* box, int swizzle_bytes) {
  if (rank < 1 || rank > 5) return "the rank is not in 1 .. 5";
  if (element_bytes != 1 && element_bytes != 2 && element_bytes != 4 && element_bytes != 8) {
    return "elements have 1, 2, 4 or 8 bytes";
  }
  if (swizzle_bytes != 0 && swizzle_bytes != 32 && swizzle_bytes != 64 && swizzle_bytes != 128) {
    return "the swizzle is not 0, 32, 64 or 128 bytes";
  }
  if (reinterpret_cast<uintptr_t>(to) % 64) return "the map itself is not at a multiple of 64";
  HostTensorMap map{};
  map.magic = MAP_MAGIC;
  map.rank = static_cast<u8>(rank);
  map.element_bytes = static_cast<u8>(element_bytes);
  map.swizzle = static_cast<u8>(swizzle_bytes);
  map.base = reinterpret_cast<u64>(base);
  for (int i = 0; i < rank; ++i) {
    map.dim[i] = static_cast<u32>(dims[i]);
    map.box[i] = static_cast<u16>(box[i]);
    if (i + 1 < rank) map.stride[i] = strides[i];
  }
  if (const char* wrong = check_map(map, dims, strides, box)) return wrong;
  memcpy(to, &map, sizeof map);
  return nullptr;
}

// Chunks of 16 bytes exchanged by the row's number, on absolute shared addresses.
u32 swizzled(u32 address, u32 span) {
  const u32 rows = span / 16;
  return rows ? address ^ (address >> 7 & (rows - 1)) << 4 : address;
}

// ---- the async proxy ----------------------------------------------------------------------------------------------

// What the copy engine and the tensor cores have been shown of dynamic shared memory: what the copy engine wrote
// itself, and all that was there at the last fence.proxy.async. Lanes of a warp come to a fence one after another, and
// what the last of them shows is all of theirs. Where not all of them come, it is shown when it is asked for.
static u8* shadow_at(u32 address) {
  if (!core->shadow_valid) {
    fill_bytes(core->shadow, POISON, ctx.smem_size);
    core->shadow_valid = true;
  }
  return core->shadow + (address - DYNAMIC_BASE);
}

// What a warp has read by ldmatrix is its own until it comes to a fence.
static u32& readers_of(u32 address) { return core->readers[(address - DYNAMIC_BASE) / READ_BYTES]; }

void has_read(u32 address) {
  if (address >= STATIC_BASE) return;
  Warp& warp = *running()->warp;
  readers_of(address) |= 1u << warp.id;
  core->reading |= 1u << warp.id;
}

static void forget_reads(u32 warps) {
  warps &= core->reading;
  if (!warps) return;
  for (u32 at = 0; at < ctx.smem_size; at += READ_BYTES) core->readers[at / READ_BYTES] &= ~warps;
  core->reading &= ~warps;
}

static void show_shared_memory() {
  copy_bytes(core->shadow, ctx.smem, ctx.smem_size);
  core->shadow_valid = true;
  core->shadow_late = false;
  u32 fenced = 0;
  for (u32 w = 0; w < core->warp_count; ++w) fenced |= (core->warps[w].fenced != 0) << w;
  forget_reads(fenced);
}

void fence_proxy_async() {
  Warp& warp = *running()->warp;
  const u32 lane = 1u << running()->id % 32;
  const bool again = warp.fenced & lane;
  warp.fenced = again ? lane : warp.fenced | lane;
  core->shadow_late = true;
  if (again || !(warp.alive & ~warp.fenced)) show_shared_memory();
  if (!(warp.alive & ~warp.fenced)) warp.fenced = 0;
}

// Whether the bytes are as the async proxy knows them.
static bool is_shown(const u8* at, u32 address, u32 bytes) {
  if (!same_bytes(at, shadow_at(address), bytes) && core->shadow_late) show_shared_memory();
  return same_bytes(at, shadow_at(address), bytes);
}

const u8* async_read(u32 address, u32 bytes, const char* what) {
  if (address >= STATIC_BASE) fail("%s: shared address 0x%x is not in dynamic shared memory", what, address);
  const u8* from = shared_ptr(address, bytes, what);
  reads(from, bytes);
  if (!is_shown(from, address, bytes)) {
    fail("%s reads shared address 0x%x, written by ordinary stores without fence.proxy.async", what, address);
  }
  return from;
}

// Bytes that the copy engine writes, with which the threads are done.
static u8* async_write(u32 address, u32 bytes) {
  u8* to = shared_ptr(address, bytes, "TMA load");
  if (EMU_UNLIKELY(!is_shown(to, address, bytes))) {
    fail("TMA load writes shared address 0x%x, written by ordinary stores without fence.proxy.async", address);
  }
  if (readers_of(address) && core->shadow_late) show_shared_memory();
  if (EMU_UNLIKELY(readers_of(address))) {
    fail("TMA load writes shared address 0x%x, read by ldmatrix in warp %d without fence.proxy.async since", address,
         __builtin_ctz(readers_of(address)));
  }
  writes(to, bytes);
  return to;
}

// ---- tiles --------------------------------------------------------------------------------------------------------

static u32 rows_of(const HostTensorMap& map) {
  u32 rows = 1;
  for (int i = 1; i < map.rank; ++i) rows *= map.box[i];
  return rows;
}
static u32 row_bytes(const HostTensorMap& map) { return u32{map.box[0]} * map.element_bytes; }

// Where row `row` of the box lies in global memory; null outside the tensor.
static u8* global_row(const TensorCopy& copy, u32 row) {
  const HostTensorMap& map = copy.map;
  u64 offset = 0;
  for (int i = 1; i < map.rank; ++i) {
    const long at = long{copy.at[i]} + row % map.box[i];
    row /= map.box[i];
    if (at < 0 || at >= long{map.dim[i]}) return nullptr;
    offset += static_cast<u64>(at) * map.stride[i - 1];
  }
  return reinterpret_cast<u8*>(map.base) + offset;
}

// Calls each(global or null, shared address, bytes) for pieces of 16 bytes inside the tensor, elements at its edge.
template <class F> static void for_each_piece(const TensorCopy& copy, F each) {
  const HostTensorMap& map = copy.map;
  const u32 width = row_bytes(map);
  const long elements_per_chunk = 16 / map.element_bytes;
  for (u32 row = 0; row < rows_of(map); ++row) {
    u8* global = global_row(copy, row);
    for (u32 byte = 0; byte < width; byte += 16) {
      const u32 shared = swizzled(copy.shared + row * width + byte, map.swizzle);
      const long first = long{copy.at[0]} + byte / map.element_bytes;
      if (global && first >= 0 && first + elements_per_chunk <= long{map.dim[0]}) {
        each(global + first * map.element_bytes, shared, 16u);
        continue;
      }
      for (long e = 0; e < elements_per_chunk; ++e) {
        const bool inside = global && first + e >= 0 && first + e < long{map.dim[0]};
        each(inside ? global + (first + e) * map.element_bytes : nullptr,
             shared + static_cast<u32>(e) * map.element_bytes, u32{map.element_bytes});
      }
    }
  }
}

static TensorCopy new_copy(const void* map, u32 shared, u32 barrier, const int* at, int rank, const char* what) {
  TensorCopy copy;
  copy_bytes(&copy.map, map, sizeof copy.map);
  if (copy.map.magic != MAP_MAGIC) fail("%s: not a tensor map", what);
  if (copy.map.rank != rank) fail("%s: a map of rank %d, an instruction of rank %d", what, copy.map.rank, rank);
  if (shared % 128) fail("%s: shared address 0x%x is not a multiple of 128", what, shared);
  if (shared >= STATIC_BASE) fail("%s: shared address 0x%x is not in dynamic shared memory", what, shared);
  shared_ptr(shared, row_bytes(copy.map) * rows_of(copy.map), what);
  copy.shared = shared;
  copy.barrier = barrier;
  for (int i = 0; i < 5; ++i) copy.at[i] = i < rank ? at[i] : 0;
  return copy;
}

// ---- loads --------------------------------------------------------------------------------------------------------

static void run_load(const TensorCopy& copy) {
  const void* edge = mbar_edge(copy.barrier);
  enter_engine(Engine::Copy, &core->load_edge);
  for_each_piece(copy, [](const u8* global, u32 shared, u32 bytes) {
    u8* to = async_write(shared, bytes);
    if (global) {
      reads(global, bytes);
      copy_bytes(to, global, bytes);
    } else {
      fill_bytes(to, 0, bytes);
    }
    copy_bytes(shadow_at(shared), to, bytes);
  });
  leave_engine(edge);
  mbar_complete_bytes(copy.barrier, row_bytes(copy.map) * rows_of(copy.map));
}

void finish_one_load(bool random) {
  const u32 chosen = random ? random_below(core->load_count) : 0;
  TensorCopy copy;
  copy_bytes(&copy, &core->loads[chosen], sizeof copy);
  core->load_count--;
  for (u32 i = chosen; i < core->load_count; ++i) copy_bytes(&core->loads[i], &core->loads[i + 1], sizeof copy);
  run_load(copy);
}

void tma_load(u32 to, const void* map, u32 barrier, const int* at, int rank) {
  const TensorCopy copy = new_copy(map, to, barrier, at, rank, "TMA load");
  mbar_edge(barrier);
  release(&core->load_edge);
  if (runs_at_issue()) return run_load(copy);
  if (core->load_count == MAX_TENSOR_LOADS) finish_one_load(false);
  copy_bytes(&core->loads[core->load_count++], &copy, sizeof copy);
}

// ---- stores -------------------------------------------------------------------------------------------------------

static void run_store(const TensorCopy& copy) {
  enter_engine(Engine::Copy, &core->load_edge);
  for_each_piece(copy, [](u8* global, u32 shared, u32 bytes) {
    const u8* from = async_read(shared, bytes, "TMA store");
    if (!global) return;
    writes(global, bytes);
    copy_bytes(global, from, bytes);
  });
  leave_engine(&core->store_edge);
}

void tma_store(const void* map, u32 from, const int* at, int rank) {
  const TensorCopy copy = new_copy(map, from, 0, at, rank, "TMA store");
  release(&core->load_edge);
  if (runs_at_issue()) return run_store(copy);
  core->used_stores = true;
  core->stores[running()->id].stores.push(copy);
}

void tma_store_commit() {
  core->used_stores = true;
  StoreQueue& queue = core->stores[running()->id];
  queue.group_ends.push(queue.stores.count);
}

// Also stands for .read: the emulator reads and writes at the same time.
void tma_store_wait(u32 keep_groups) {
  StoreQueue& queue = core->stores[running()->id];
  if (queue.group_ends.count <= keep_groups) return;
  const u32 groups = queue.group_ends.count - keep_groups, end = queue.group_ends[groups - 1];
  for (u32 i = 0; i < end; ++i) run_store(queue.stores[i]);
  queue.stores.drop_front(end);
  queue.group_ends.drop_front(groups);
  for (u32& group_end : queue.group_ends) group_end -= end;
  acquire(&core->store_edge);
}

}  // namespace emu
