// Whole kernels on the emulator: the right ones under every schedule, and how fast they are.
#include "products.h"

#include <ctime>

Product::Product(Type type, bool transposed, u32 m, u32 n, u32 k)
    : transposed_(transposed), m_(m), n_(n), k_(k), x_(size_t{m} * k), w_(size_t{n} * k), y_(size_t{m} * n) {
  u16 halves[33];
  double values[33];
  Random random;
  for (int i = 0; i < 33; ++i) halves[i] = small_half(random, type, &values[i]);
  std::vector<double> x, w;
  for (size_t i = 0; i < x_.size(); ++i) {
    const size_t pick = random.next() % 33;
    x_[i] = halves[pick];
    x.push_back(values[pick]);
  }
  for (size_t i = 0; i < w_.size(); ++i) {
    const size_t pick = random.next() % 33;
    w_[i] = halves[pick];
    w.push_back(values[pick]);
  }
  for (size_t i = 0; i < size_t{m} * n; ++i) {
    double sum = 0;
    for (size_t q = 0; q < k; ++q) sum += x[i / n * k + q] * w[transposed ? q * n + i % n : i % n * k + q];
    wanted_.push_back(sum);
  }
}

std::string Product::verdict(const std::string& error) const {
  if (!error.empty()) return error;
  for (size_t i = 0; i < wanted_.size(); ++i) {
    if (static_cast<double>(y_[i]) != wanted_[i]) return "wrong values";
  }
  return "";
}

struct Sizes {
  int m, n, k;
};

std::string Product::run_mma(const std::string& kernel, const emu_schedule& schedule) {
  y_.fill(0xff);
  const Shape shape{{m_ / 64, n_ / 64, 1}, {128, 1, 1}, 3 * 2 * 64 * 32 * 2};
  const Sizes sizes{static_cast<int>(m_), static_cast<int>(n_), static_cast<int>(k_)};
  return verdict(launch(kernel, schedule, shape, y_.data(), x_.data(), w_.data(), sizes));
}

std::string Product::run_wgmma(const std::string& kernel, const emu_schedule& schedule, u32 tile) {
  y_.fill(0xff);
  TensorMap x, w;
  std::string error = encode(&x, 2, x_.data(), {k_, m_}, {64, 64}, 128);
  if (error.empty()) error = encode(&w, 2, w_.data(), {transposed_ ? n_ : k_, transposed_ ? k_ : n_}, {64, 64}, 128);
  if (!error.empty()) return error;
  const Shape shape{{m_ / 64, n_ / tile, 1}, {160, 1, 1}, 4 * (64 + tile) * 64 * 2 + 64};
  const Sizes sizes{static_cast<int>(m_), static_cast<int>(n_), static_cast<int>(k_)};
  return verdict(launch(kernel, schedule, shape, y_.data(), x, w, sizes));
}

std::string Product::run_through_shared(const std::string& kernel, const emu_schedule& schedule) {
  y_.fill(0xff);
  TensorMap y;
  const std::string error = encode(&y, 4, y_.data(), {n_, m_}, {32, 64}, 0);
  if (!error.empty()) return error;
  return verdict(launch(kernel, schedule, {{1, 1, 1}, {128, 1, 1}, 32768}, y, x_.data(), w_.data()));
}

std::string Product::run_from_registers(const std::string& kernel, const emu_schedule& schedule) {
  y_.fill(0xff);
  return verdict(launch(kernel, schedule, {{1, 1, 1}, {128, 1, 1}, 8192}, y_.data(), x_.data(), w_.data()));
}

std::string run_block(const std::string& kernel, const emu_schedule& schedule) {
  constexpr u32 BLOCKS = 3, THREADS = 128;
  Buffer<float> out(BLOCKS * 2), x(BLOCKS * THREADS);
  out.fill(0);
  float wanted[BLOCKS] = {};
  for (u32 i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(i % 7) - 2.0f;
    wanted[i / THREADS] += x[i] + 2.0f * x[i] * x[i];
  }
  const Shape shape{{BLOCKS, 1, 1}, {THREADS, 1, 1}, 256};
  const bool past_the_end = kernel == "block_just_past_output";
  float beyond = 0;
  if (past_the_end) memcpy(&beyond, out.data() + BLOCKS * 2, sizeof beyond);
  const std::string error = launch(kernel, schedule, shape, out.data(), x.data(), 0);
  if (past_the_end) memcpy(out.data() + BLOCKS * 2, &beyond, sizeof beyond);  // freeing checks it too, and aborts
  if (!error.empty()) return error;
  for (u32 block = 0; block < BLOCKS; ++block) {
    if (out[block] != wanted[block]) return "wrong values";
    if (out[BLOCKS + block] != 0.0f && kernel != "block_lost_updates") return "wrong values";
  }
  return "";
}

std::string run_cluster(const std::string& kernel, const emu_schedule& schedule, u32 blocks) {
  constexpr u32 BLOCKS = 16, LAYERS = 3, THREADS = 64;
  Buffer<float> out(BLOCKS * LAYERS), x(BLOCKS * LAYERS * THREADS);
  std::vector<float> wanted(BLOCKS * LAYERS / blocks);
  for (u32 i = 0; i < x.size(); ++i) {
    const u32 block = i / THREADS;
    x[i] = static_cast<float>(i % 7 + block % 5) - 2.0f;
    wanted[block / blocks] += static_cast<float>(block % blocks + 1) * (x[i] + 2.0f * x[i] * x[i]);
  }
  const std::string error = launch(kernel, schedule, {{BLOCKS, LAYERS, 1}, {THREADS, 1, 1}, 64}, out.data(), x.data());
  if (!error.empty()) return error;
  for (u32 block = 0; block < out.size(); ++block) {
    if (out[block] != wanted[block / blocks]) return "wrong values";
  }
  return "";
}

std::string run_twice(const std::string& kernel, const emu_schedule& schedule, bool written) {
  constexpr u32 THREADS = 128, WORDS = 2048;  // of a box
  Buffer<u32> y(2 * THREADS), x(2 * WORDS);
  y.fill(0xff);
  for (u32 i = 0; i < x.size(); ++i) x[i] = i;
  TensorMap map;
  std::string error = encode(&map, 2, x.data(), {64, 128}, {64, 64}, 0);
  if (error.empty()) error = launch(kernel, schedule, {{1, 1, 1}, {THREADS, 1, 1}, 8192 + 16}, y.data(), map);
  if (!error.empty()) return error;
  for (u32 i = 0; i < y.size(); ++i) {
    const u32 box = i / THREADS * WORDS, warp = i % THREADS / 32, lane = i % 32;
    if (y[i] != box + (written ? i % THREADS * 4 : (warp * 32 + lane / 4) * 4 + lane % 4)) return "wrong values";
  }
  return "";
}

void test_products(u64 seeds) {
  Product mma_bf16(Type::Bf16, false, 128, 64, 224), mma_f16(Type::F16, false, 64, 128, 160);
  Product bf16_64(Type::Bf16, false, 128, 64, 448), f16_128(Type::F16, false, 64, 256, 384);
  Product bf16_128(Type::Bf16, true, 64, 256, 384), f16_256(Type::F16, true, 64, 256, 320);
  Product square_bf16(Type::Bf16, true, 64, 64, 64), square_f16(Type::F16, false, 64, 64, 64);
  for (const Named& s : schedules(seeds)) {
    auto right = [&](const char* kernel, const std::string& error) {
      check(kernel + (", " + s.name), error.empty(), error);
    };
    right("gemm_bf16", mma_bf16.run_mma("gemm_bf16", s.schedule));
    right("gemm_f16", mma_f16.run_mma("gemm_f16", s.schedule));
    right("block_sums", run_block("block_sums", s.schedule));
    right("cluster_of_2", run_cluster("cluster_of_2", s.schedule, 2));
    right("cluster_of_4", run_cluster("cluster_of_4", s.schedule, 4));
    right("cluster_of_8", run_cluster("cluster_of_8", s.schedule, 8));
    right("hopper_bf16_64", bf16_64.run_wgmma("hopper_bf16_64", s.schedule, 64));
    right("hopper_f16_128", f16_128.run_wgmma("hopper_f16_128", s.schedule, 128));
    right("hopper_bf16_128_transposed", bf16_128.run_wgmma("hopper_bf16_128_transposed", s.schedule, 128));
    right("hopper_f16_256_transposed", f16_256.run_wgmma("hopper_f16_256_transposed", s.schedule, 256));
    right("hopper_through_shared", square_bf16.run_through_shared("hopper_through_shared", s.schedule));
    right("hopper_from_registers_bf16", square_bf16.run_from_registers("hopper_from_registers_bf16", s.schedule));
    right("hopper_read_twice", run_twice("hopper_read_twice", s.schedule, false));
    right("hopper_written_twice", run_twice("hopper_written_twice", s.schedule, true));
    right("hopper_from_registers_f16", square_f16.run_from_registers("hopper_from_registers_f16", s.schedule));
  }
}

// ---- speed --------------------------------------------------------------------------------------------------------

static double processor_seconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// The best of a few, in processor time: other processes do not count.
template <class F> static double seconds(F run) {
  double best = 1e9;
  for (int i = 0; i < 30; ++i) {
    const double start = processor_seconds();
    run();
    best = std::fmin(best, processor_seconds() - start);
  }
  return best;
}

void measure() {
  Product mma(Type::Bf16, false, 256, 256, 512), mma_f16(Type::F16, false, 256, 256, 512);
  Product wgmma(Type::Bf16, false, 256, 256, 512);
  const double mma_time = seconds([&] { mma.run_mma("gemm_bf16", IN_ORDER); });
  const double f16_time = seconds([&] { mma_f16.run_mma("gemm_f16", IN_ORDER); });
  const double wgmma_time = seconds([&] { wgmma.run_wgmma("hopper_bf16_64", IN_ORDER, 64); });
  printf("cp.async and mma, bf16: %.1f GFLOP/s; f16: %.1f\n", mma.flops() / mma_time * 1e-9,
         mma.flops() / f16_time * 1e-9);
  printf("TMA and wgmma, bf16: %.1f GFLOP/s\n", wgmma.flops() / wgmma_time * 1e-9);
  emu_schedule random{1, 2, 2, 0, 1};
  printf("cp.async and mma, bf16, random: %.1f GFLOP/s\n",
         mma.flops() / seconds([&] { mma.run_mma("gemm_bf16", random); }) * 1e-9);
  uint64_t stats[5];
  emu_stats(stats, 1);
  mma.run_mma("gemm_bf16", IN_ORDER);
  emu_stats(stats, 1);
  printf("%llu switches, %llu collectives, %llu blocks, %llu rows by ldmatrix, %llu in conflict\n",
         static_cast<unsigned long long>(stats[0]), static_cast<unsigned long long>(stats[1]),
         static_cast<unsigned long long>(stats[2]), static_cast<unsigned long long>(stats[3]),
         static_cast<unsigned long long>(stats[4]));
  constexpr u32 BLOCKS = 100;
  Buffer<float> out(BLOCKS * 2), x(BLOCKS * 128);
  x.fill(0);
  out.fill(0);
  const Shape shape{{BLOCKS, 1, 1}, {128, 1, 1}, 0};
  emu_stats(stats, 1);
  const double time = seconds([&] { launch("block_sums", IN_ORDER, shape, out.data(), x.data(), 0); });
  emu_stats(stats, 1);
  const double per_thread = time / (BLOCKS * 128) * 1e9;
  printf("block sums: %.1f ns a thread, which shuffles 10 times and meets at 4 barriers\n", per_thread);
}
