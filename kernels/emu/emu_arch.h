// emu_arch.h - host emulation entry points behind arch.h / arch90.h (implemented in emu.cpp)
#pragma once
#include "emu.h"
namespace emu {
// sm_80 class
extern bool batch;   // false: one collective per instruction (to measure)
// sm_90 class
struct alignas(64) TensorMapHost { u32 magic; u8 rank, esz, swizzle, pad; u64 base; u32 dim[5]; u64 stride[4]; u16 box[5]; };
static_assert(sizeof(TensorMapHost) == 128, "CUtensorMap size");
const char* tensor_map_encode(void* map, int rank, int elem_bytes, void* base, const u64* dims,
                              const u64* strides, const u32* box, int swizzle_bytes);
void mbar_init(u32 bar, u32 count); void mbar_arrive(u32 bar, u32 tx, bool expect);
bool mbar_try_wait(u32 bar, u32 parity, const char* f, int l);
void tma_load(u32 dst, const void* map, u32 bar, const int* coord, int rank);
void fence_proxy_async();
void wg_fence(); void wg_commit(); void wg_wait(u32 keep, const char* f, int l);
void wgmma(float* d, int n, u64 da, u64 db, int ta, int tb, int scale_d, const char* f, int l);
}
