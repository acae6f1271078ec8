// The C interface of the emulator: what the library binds and the tests call. Shaped like the driver's: a function by
// name, an array of pointers to arguments.
#pragma once
#include <stddef.h>
#include <stdint.h>

extern "C" {

// Registered kernels, in no order.
size_t emu_kernel_count();
const char* emu_kernel_name(size_t index);
// A kernel by its name, or null.
const void* emu_function(const char* name);
uint32_t emu_arg_count(const void* function);
// In bytes; 0 when there is no such argument.
uint32_t emu_arg_size(const void* function, uint32_t index);

struct emu_schedule {
  uint32_t threads;  // OS threads that run blocks
  uint32_t order;    // 0 in order, 1 reverse, 2 random
  uint32_t async;    // 0 early, 1 late, 2 random
  uint32_t pad;
  uint64_t seed;     // of what is random
};
// 0, or 1 with a message. May be called from many OS threads at once.
int32_t emu_launch(const void* function, const uint32_t grid[3], const uint32_t block[3], uint32_t smem, void** args,
                   const struct emu_schedule* schedule, char* error, size_t error_length);

// The sanitizer that watches the kernels: 1 AddressSanitizer, 2 ThreadSanitizer; 0 none.
int32_t emu_sanitized();

// Device memory: filled with NaN, between two pages that cannot be touched, at a multiple of 16. It ends at the second
// page; the bytes left when its size is no multiple of 16 are checked by launches and when it is freed.
void* emu_alloc(size_t bytes);
void emu_free(void* start, size_t bytes);

// Fills the 128 bytes of a tensor map, at a multiple of 64. Dimensions in elements, innermost first; strides in bytes,
// of dimensions 1 and up. 0, or 1 with a message.
int emu_tensor_map(void* map, int rank, int element_bytes, void* base, const uint64_t* dims, const uint64_t* strides,
                   const uint32_t* box, int swizzle_bytes, char* error, size_t error_length);

// Of the launches that this OS thread made: switches, collectives, blocks, rows read by ldmatrix, rows of them in
// conflict over banks.
void emu_stats(uint64_t out[5], int reset);

}
