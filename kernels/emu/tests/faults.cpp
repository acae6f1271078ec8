// Planted faults: each must show under some schedule, as an error or as wrong values; and the interface's own promises.
#include <atomic>
#include <functional>
#include <set>
#include <thread>

#include "products.h"

using Run = std::function<std::string(const emu_schedule&)>;

struct Fault {
  std::string kernel;
  std::string says;  // part of the error; empty when wrong values will do
  Run run;
};

static Fault in_block(const char* kernel, const char* says) {
  return {kernel, says, [=](const emu_schedule& s) { return run_block(kernel, s); }};
}
static Fault in_cluster(const char* kernel, const char* says) {
  return {kernel, says, [=](const emu_schedule& s) { return run_cluster(kernel, s, 4); }};
}
static Fault in_mma(Product& product, const char* kernel, const char* says) {
  return {kernel, says, [=, &product](const emu_schedule& s) { return product.run_mma(kernel, s); }};
}
static Fault in_wgmma(Product& product, const char* kernel, const char* says, u32 tile = 64) {
  return {kernel, says, [=, &product](const emu_schedule& s) { return product.run_wgmma(kernel, s, tile); }};
}
static Fault through_shared(Product& product, const char* kernel, const char* says) {
  return {kernel, says, [=, &product](const emu_schedule& s) { return product.run_through_shared(kernel, s); }};
}
static Fault twice(const char* kernel, const char* says, bool written) {
  return {kernel, says, [=](const emu_schedule& s) { return run_twice(kernel, s, written); }};
}
static Fault from_registers(Product& product, const char* kernel, const char* says) {
  return {kernel, says, [=, &product](const emu_schedule& s) { return product.run_from_registers(kernel, s); }};
}

static const std::vector<Fault>& faults() {
  static Product mma(Type::Bf16, false, 128, 64, 224), wgmma(Type::Bf16, false, 128, 64, 448);
  static Product transposed(Type::Bf16, true, 64, 128, 128), square(Type::Bf16, true, 64, 64, 64);
  static const std::vector<Fault> all = {
      in_block("block_no_barrier", ""),
      in_block("block_no_barrier_before_reuse", ""),
      in_block("block_divergent_barrier", "divergent barrier"),
      in_block("block_exit_before_barrier", "exited"),
      in_block("block_full_mask_in_half_a_warp", "block.cu"),
      in_block("block_inactive_lane", "which takes no part"),
      in_block("block_different_collectives", "warp divergence"),
      in_block("block_past_dynamic", "past the end of dynamic shared memory"),
      in_block("block_past_static", "past the end of a static shared array"),
      in_block("block_far_past_output", "invalid access"),
      in_block("block_just_past_output", "past the end of a buffer of 24 bytes"),
      in_block("block_null_pointer", "invalid access at (nil)"),
      in_block("block_division_by_zero", "division by zero"),
      in_block("block_deep_stack", "stack is full"),
      in_block("block_barrier_of_too_many", "deadlock"),
      in_block("block_spin", "only yields"),
      in_block("block_no_syncwarp", ""),
      in_cluster("cluster_no_first_sync", "may not have started"),
      in_cluster("cluster_no_sync", ""),
      in_cluster("cluster_no_sync_before_reuse", ""),
      in_cluster("cluster_no_last_sync", "which has ended"),
      in_cluster("cluster_rank_beyond", "block 4 of a cluster of 4"),
      in_cluster("cluster_divergent_sync", "divergent barrier"),
      in_cluster("cluster_exit_before_sync", "of the cluster exited"),
      in_cluster("cluster_barrier_of_the_block", "of block 0 of the cluster wait in a cluster barrier"),
      in_cluster("cluster_static_memory", "outside the block's dynamic shared memory"),
      in_mma(mma, "gemm_no_barrier", ""),
      in_mma(mma, "gemm_weak_wait", ""),
      in_mma(mma, "gemm_no_wait", ""),
      in_mma(mma, "gemm_shifted_row", "invalid access"),
      in_mma(mma, "gemm_wrong_swizzle", ""),
      in_mma(mma, "gemm_wrong_stage", ""),
      in_mma(mma, "gemm_outside_shared", "outside the block's shared memory"),
      in_mma(mma, "gemm_misaligned", "misaligned"),
      in_wgmma(wgmma, "hopper_wrong_stride", ""),
      in_wgmma(transposed, "hopper_wrong_leading", "", 128),
      in_wgmma(wgmma, "hopper_wrong_advance", ""),
      in_wgmma(wgmma, "hopper_swapped_coordinates", ""),
      in_wgmma(wgmma, "hopper_no_full_wait", ""),
      in_wgmma(wgmma, "hopper_wrong_parity", ""),
      in_wgmma(wgmma, "hopper_no_empty_wait", ""),
      in_wgmma(wgmma, "hopper_too_few_bytes", ""),
      in_wgmma(wgmma, "hopper_no_expect", ""),
      in_wgmma(wgmma, "hopper_early_release", ""),
      in_wgmma(wgmma, "hopper_no_barrier_after_init", "no initialised mbarrier"),
      in_wgmma(wgmma, "hopper_no_wgmma_wait", ""),
      in_wgmma(wgmma, "hopper_no_wgmma_fence", "no wgmma.fence"),
      through_shared(square, "hopper_no_proxy_fence", "without fence.proxy.async"),
      through_shared(square, "hopper_no_store_wait", ""),
      twice("hopper_read_twice_no_fence", "read by ldmatrix in warp", false),
      twice("hopper_written_twice_no_fence", "written by ordinary stores", true),
      from_registers(square, "hopper_from_registers_no_fence", "no wgmma.fence"),
      from_registers(square, "hopper_from_registers_overwritten", ""),
  };
  return all;
}

void test_faults(u64 seeds) {
  for (const Fault& fault : faults()) {
    int caught = 0, runs = 0;
    bool said = fault.says.empty();
    std::string first;
    for (const Named& s : schedules(seeds)) {
      const std::string error = fault.run(s.schedule);
      runs++;
      if (error.empty()) continue;
      caught++;
      said = said || error.find(fault.says) != std::string::npos;
      if (first.empty()) first = error.substr(0, error.find('\n'));
    }
    const std::string count = std::to_string(caught) + " of " + std::to_string(runs) + " schedules";
    check("fault " + fault.kernel, caught > 0 && said, count + ", " + first);
  }
}

// For sanitizers; also those of block.cu that the emulator alone does not see.
bool run_fault(const std::string& name) {
  for (const Fault& fault : faults()) {
    if (fault.kernel != name) continue;
    printf("%s\n", fault.run(IN_ORDER).c_str());
    return true;
  }
  if (!emu_function(name.c_str())) return false;
  printf("%s\n", run_block(name, IN_ORDER).c_str());
  return true;
}

// ---- the interface ------------------------------------------------------------------------------------------------

static void launch_from_many_threads() {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (u64 t = 0; t < 6; ++t) {
    threads.emplace_back([&wrong, t] {
      for (u64 i = 0; i < 20; ++i) {
        const emu_schedule schedule{1 + static_cast<u32>(i % 2), 2, 2, 0, t * 100 + i};
        const bool fails = i % 5 == 3;  // failed launches beside right ones
        const std::string error = run_block(fails ? "block_far_past_output" : "block_sums", schedule);
        wrong += error.empty() == fails;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  check("six OS threads launch at once, some of them faulting", wrong == 0, std::to_string(wrong) + " wrong");
}

void test_interface() {
  check("an unknown kernel is null", emu_function("no_such_kernel") == nullptr);
  const size_t count = emu_kernel_count();
  std::set<std::string> names;
  for (size_t i = 0; i < count; ++i) names.insert(emu_kernel_name(i));
  const bool listed = names.size() == count && names.count("block_sums") && !emu_kernel_name(count);
  check("registered kernels can be listed, each once", listed, std::to_string(count) + " of them");
  Buffer<float> out(4);
  auto refused = [&](const char* what, const Shape& shape) {
    const std::string error = launch("block_sums", IN_ORDER, shape, out.data(), out.data(), 0);
    check(std::string("refused: ") + what, !error.empty(), error);
  };
  refused("1025 threads", {{1, 1, 1}, {1025, 1, 1}, 0});
  refused("no blocks", {{1, 0, 1}, {32, 1, 1}, 0});
  refused("a megabyte of shared memory", {{1, 1, 1}, {32, 1, 1}, 1 << 20});
  const std::string odd = launch("cluster_of_4", IN_ORDER, {{6, 1, 1}, {64, 1, 1}, 64}, out.data(), out.data());
  check("refused: six blocks in clusters of four", !odd.empty(), odd);
  TensorMap map;
  check("refused: a tensor map with rows of 8 bytes", !encode(&map, 2, out.data(), {4, 1}, {4, 1}, 0).empty());
  check("refused: a tensor map with strides of 20 bytes", !encode(&map, 2, out.data(), {10, 4}, {8, 4}, 0).empty());
  bool nan = true, aligned = true;
  for (size_t bytes : {1, 6, 16, 24, 4096, 5000}) {
    Buffer<unsigned char> buffer(bytes);
    for (size_t i = 0; i < bytes; ++i) nan = nan && buffer[i] == 0xff;
    aligned = aligned && reinterpret_cast<uintptr_t>(buffer.data()) % 16 == 0;
  }
  check("device memory starts as NaN, at a multiple of 16", nan && aligned);
  launch_from_many_threads();
}
