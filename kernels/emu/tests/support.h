// What the tests share: device buffers, launches under a schedule, the list of schedules, checks that print one line.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "../interface.h"

using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;

// ---- checks -------------------------------------------------------------------------------------------------------

extern int failures, checks;

inline void check(const std::string& what, bool good, const std::string& detail = "") {
  checks++;
  failures += !good;
  printf("%s  %s%s%s\n", good ? "ok  " : "FAIL", what.c_str(), detail.empty() ? "" : ": ", detail.c_str());
  fflush(stdout);
}

// ---- numbers ------------------------------------------------------------------------------------------------------

struct Random {
  u64 state = 88172645463325252ull;
  u64 next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  }
  float symmetric() { return static_cast<float>(static_cast<double>(next() >> 11) / 4503599627370496.0 - 1.0); }
};

enum class Type { Bf16, F16 };

// From the formats' definitions, not from the emulator.
inline double value_of(u16 x, Type type) {
  const int mantissa_bits = type == Type::Bf16 ? 7 : 10, bias = type == Type::Bf16 ? 127 : 15;
  const int exponent = (x & 0x7fff) >> mantissa_bits, mantissa = x & ((1 << mantissa_bits) - 1);
  const int top = type == Type::Bf16 ? 255 : 31;
  double size;
  if (exponent == top) {
    size = mantissa ? NAN : INFINITY;
  } else if (exponent == 0) {
    size = std::ldexp(mantissa, 1 - bias - mantissa_bits);
  } else {
    size = std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
  }
  return x >> 15 ? -size : size;
}
// Values with few bits, exact in both formats and in their sums: x / 8 for |x| <= 16.
inline u16 small_half(Random& random, Type type, double* value) {
  const int x = static_cast<int>(random.next() >> 33) % 33 - 16;
  for (u32 bits = 0; bits < 65536; ++bits) {
    if (value_of(static_cast<u16>(bits), type) == x / 8.0) {
      *value = x / 8.0;
      return static_cast<u16>(bits);
    }
  }
  return 0;
}

// ---- device memory ------------------------------------------------------------------------------------------------

template <class T> class Buffer {
 public:
  explicit Buffer(size_t n) : count_(n), data_(static_cast<T*>(emu_alloc(n * sizeof(T)))) {}
  ~Buffer() { emu_free(data_, count_ * sizeof(T)); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return data_; }
  size_t size() const { return count_; }
  T& operator[](size_t i) const { return data_[i]; }
  void fill(int byte) { memset(data_, byte, count_ * sizeof(T)); }
  std::vector<T> copy() const { return std::vector<T>(data_, data_ + count_); }

 private:
  size_t count_;
  T* data_;
};

struct alignas(64) TensorMap { u64 opaque[16]; };

// Dense, innermost dimension first. Returns what is wrong, or nothing.
inline std::string encode(TensorMap* map, int element_bytes, void* base, std::vector<u64> dims, std::vector<u32> box,
                          int swizzle) {
  std::vector<u64> strides;
  u64 stride = static_cast<u64>(element_bytes);
  for (u64 dim : dims) strides.push_back(stride *= dim);
  char error[256] = "";
  const int rank = static_cast<int>(dims.size());
  emu_tensor_map(map, rank, element_bytes, base, dims.data(), strides.data(), box.data(), swizzle, error, sizeof error);
  return error;
}

// ---- launches -----------------------------------------------------------------------------------------------------

struct Named {
  std::string name;
  emu_schedule schedule;
};

// In order, reverse, late, on two OS threads, and `seeds` random ones.
inline std::vector<Named> schedules(u64 seeds) {
  std::vector<Named> all = {{"in order, early", {1, 0, 0, 0, 0}},
                            {"reverse, late", {1, 1, 1, 0, 0}},
                            {"in order, late", {1, 0, 1, 0, 0}},
                            {"two OS threads", {2, 0, 0, 0, 0}}};
  for (u64 seed = 1; seed <= seeds; ++seed) {
    all.push_back({"random " + std::to_string(seed), {1 + static_cast<u32>(seed % 2), 2, 2, 0, seed}});
  }
  return all;
}
constexpr emu_schedule IN_ORDER{1, 0, 0, 0, 0};

struct Shape {
  u32 grid[3], block[3], smem;
};

// The error, or nothing.
template <class... A>
std::string launch(const std::string& name, const emu_schedule& schedule, const Shape& shape, A... arguments) {
  const void* function = emu_function(name.c_str());
  if (!function) return "no kernel " + name;
  void* pointers[] = {static_cast<void*>(&arguments)...};
  const u32 sizes[] = {static_cast<u32>(sizeof(A))...};
  if (emu_arg_count(function) != sizeof...(A)) return "wrong number of arguments";
  for (u32 i = 0; i < sizeof...(A); ++i) {
    if (emu_arg_size(function, i) != sizes[i]) return "argument " + std::to_string(i) + " has another size";
  }
  char error[4096] = "";
  emu_launch(function, shape.grid, shape.block, shape.smem, pointers, &schedule, error, sizeof error);
  return error;
}

// The parts of the driver.
void test_conversions();
void test_units(u64 seeds);
void test_products(u64 seeds);
void test_faults(u64 seeds);
void test_interface();
void measure();
// One planted fault by its kernel's name, for sanitizers to end the process; false when there is none.
bool run_fault(const std::string& name);
