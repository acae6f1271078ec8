// What the emulator tells ThreadSanitizer and AddressSanitizer; nothing at all in a plain build.
//
// Kernels are compiled with -fsanitize=thread, the emulator is not: it is given EMU_TSAN and reports what the emulated
// instructions access. Each CUDA thread is an identity of its own. Only what orders memory on the device makes an edge:
// barriers, __syncwarp, mbarriers, block start and end; never shuffles, votes or tensor instructions.
#pragma once
#include <cstddef>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(EMU_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void*, unsigned long);
extern "C" void __tsan_write_range(void*, unsigned long);
#endif

namespace emu {

#if defined(EMU_TSAN)
inline void acquire(const void* edge) { __tsan_acquire(const_cast<void*>(edge)); }
inline void release(const void* edge) { __tsan_release(const_cast<void*>(edge)); }
inline void reads(const void* p, size_t n) { __tsan_read_range(const_cast<void*>(p), n); }
inline void writes(const void* p, size_t n) { __tsan_write_range(const_cast<void*>(p), n); }

// Its runtime intercepts memcpy and the like even here: instructions, and a loop that the compiler does not turn into a
// call. A fence copies all of shared memory, for every thread.
inline void copy_bytes(void* to, const void* from, size_t n) {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}
inline void fill_bytes(void* to, int value, size_t n) {
  asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
}
inline bool same_bytes(const void* a, const void* b, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    if (static_cast<const volatile char*>(a)[i] != static_cast<const char*>(b)[i]) return false;
  }
  return true;
}
#else
inline void acquire(const void*) {}
inline void release(const void*) {}
inline void reads(const void*, size_t) {}
inline void writes(const void*, size_t) {}
inline void copy_bytes(void* to, const void* from, size_t n) { memcpy(to, from, n); }
inline void fill_bytes(void* to, int value, size_t n) { memset(to, value, n); }
inline bool same_bytes(const void* a, const void* b, size_t n) { return memcmp(a, b, n) == 0; }
#endif

#if defined(EMU_ASAN)
inline void poison(const void* p, size_t n) { __asan_poison_memory_region(p, n); }
inline void unpoison(const void* p, size_t n) { __asan_unpoison_memory_region(p, n); }
#else
inline void poison(const void*, size_t) {}
inline void unpoison(const void*, size_t) {}
#endif

}  // namespace emu
