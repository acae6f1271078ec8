// Kernels run to the end and compared with exact results: every input is small enough that sums are exact in float.
#pragma once
#include "support.h"

// y (m, n) = x (m, k) w with w (n, k), or (k, n) when transposed.
class Product {
 public:
  Product(Type type, bool transposed, u32 m, u32 n, u32 k);
  // An error, "wrong values", or nothing.
  std::string run_mma(const std::string& kernel, const emu_schedule& schedule);
  std::string run_wgmma(const std::string& kernel, const emu_schedule& schedule, u32 tile);
  std::string run_through_shared(const std::string& kernel, const emu_schedule& schedule);
  std::string run_from_registers(const std::string& kernel, const emu_schedule& schedule);
  double flops() const { return 2.0 * m_ * n_ * k_; }

 private:
  std::string verdict(const std::string& error) const;

  bool transposed_;
  u32 m_, n_, k_;
  Buffer<u16> x_, w_;
  Buffer<float> y_;
  std::vector<double> wanted_;
};

// The sums of block.cu, under kernels of that signature.
std::string run_block(const std::string& kernel, const emu_schedule& schedule);
// Boxes of hopper.cu that come one after the other through the same shared memory, and are read or `written` there.
std::string run_twice(const std::string& kernel, const emu_schedule& schedule, bool written);
// Those of cluster.cu, whose clusters are of so many blocks.
std::string run_cluster(const std::string& kernel, const emu_schedule& schedule, u32 blocks);
