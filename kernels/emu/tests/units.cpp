// Instructions against their mapping formulas, conversions against the formats' definitions.
#include "support.h"

#include "emu.h"

// ---- conversions --------------------------------------------------------------------------------------------------

static u16 from_float(float x, Type type) { return type == Type::Bf16 ? emu::f32_to_bf16(x) : emu::f32_to_f16(x); }
static float to_float(u16 x, Type type) { return type == Type::Bf16 ? emu::bf16_to_f32(x) : emu::f16_to_f32(x); }

// Every value comes back; between neighbours, the middle goes to the even one and either side of it to the nearer.
static int wrong_conversions(Type type) {
  int wrong = 0;
  const u16 infinity = type == Type::Bf16 ? 0x7f80 : 0x7c00;
  for (u32 bits = 0; bits < 65536; ++bits) {
    const u16 x = static_cast<u16>(bits), size = x & 0x7fff, sign = x & 0x8000;
    const double value = value_of(x, type);
    const float f = to_float(x, type);
    if (size > infinity) {
      const u16 back = from_float(f, type);
      wrong += !std::isnan(f) || (back & 0x7fff) <= infinity;
      continue;
    }
    wrong += static_cast<double>(f) != value || std::signbit(f) != (sign != 0) || from_float(f, type) != x;
    if (size + 1 >= infinity) continue;
    const u16 next = static_cast<u16>(x + 1), even = x & 1 ? next : x;
    const float middle = static_cast<float>((value + value_of(next, type)) / 2);  // exact: one bit more
    const float away = sign ? -INFINITY : INFINITY;
    wrong += from_float(middle, type) != even;
    wrong += from_float(std::nextafterf(middle, 0.0f), type) != x;
    wrong += from_float(std::nextafterf(middle, away), type) != next;
  }
  return wrong;
}

void test_conversions() {
  check("bf16: every value, every middle between two", wrong_conversions(Type::Bf16) == 0);
  check("f16: every value, every middle between two", wrong_conversions(Type::F16) == 0);
  const bool overflow = emu::f32_to_f16(65519.0f) == 0x7bff && emu::f32_to_f16(65520.0f) == 0x7c00 &&
                        emu::f32_to_f16(-1e9f) == 0xfc00 && emu::f32_to_bf16(3.4e38f) == 0x7f80;
  check("beyond the largest value is infinity", overflow);
}

// ---- matrices -----------------------------------------------------------------------------------------------------

static void test_ldmatrix(const Named& s) {
  Buffer<u16> rows(64 * 8);
  Buffer<u32> out(32 * 8);
  for (u32 i = 0; i < 512; ++i) rows[i] = static_cast<u16>(i * 3 + 1);
  const Shape shape{{1, 1, 1}, {32, 1, 1}, 1024};
  for (bool transposed : {false, true}) {
    const char* name = transposed ? "unit_ldmatrix_trans" : "unit_ldmatrix";
    std::string error = launch(name, s.schedule, shape, out.data(), rows.data());
    int wrong = 0;
    for (u32 lane = 0; lane < 32; ++lane) {
      for (u32 e = 0; e < 8; ++e) {
        // Tile e % 4 of instruction e / 4; row r of it is at the address that lane 8 (e % 4) + r gave.
        auto half = [&](u32 r, u32 column) {
          const u32 giver = e % 4 * 8 + r, row = e / 4 ? 63 - giver : giver;
          return u32{rows[row * 8 + column]};
        };
        const u32 g = lane / 4, t = lane % 4;
        const u32 low = transposed ? half(2 * t, g) : half(g, 2 * t);
        const u32 high = transposed ? half(2 * t + 1, g) : half(g, 2 * t + 1);
        wrong += out[lane * 8 + e] != (low | high << 16);
      }
    }
    check(std::string(name) + ", " + s.name, error.empty() && !wrong, error);
  }
}

static void test_stmatrix(const Named& s) {
  Buffer<u16> rows(64 * 8);
  Buffer<u32> registers(32 * 8);
  for (u32 i = 0; i < 256; ++i) registers[i] = (2 * i + 1) << 16 | 2 * i;
  std::string error = launch("unit_stmatrix", s.schedule, {{1, 1, 1}, {32, 1, 1}, 1024}, rows.data(), registers.data());
  int wrong = 0;
  for (u32 lane = 0; lane < 32; ++lane) {
    for (u32 e = 0; e < 8; ++e) {
      const u32 row = e / 4 * 32 + e % 4 * 8 + lane / 4, column = 2 * (lane % 4), pair = registers[lane * 8 + e];
      wrong += rows[row * 8 + column] != (pair & 0xffff) || rows[row * 8 + column + 1] != pair >> 16;
    }
  }
  check("unit_stmatrix, " + s.name, error.empty() && !wrong, error);
}

struct Matrices {  // a (32, 16), b (16, 32), c (32, 32)
  u16 a[32][16], b[16][32];
  double a_value[32][16], b_value[16][32], c[32][32];

  Matrices(Type type, bool with_c) {
    Random random;
    for (int i = 0; i < 512; ++i) a[i / 16][i % 16] = small_half(random, type, &a_value[i / 16][i % 16]);
    for (int i = 0; i < 512; ++i) b[i / 32][i % 32] = small_half(random, type, &b_value[i / 32][i % 32]);
    for (int i = 0; i < 1024; ++i) c[i / 32][i % 32] = with_c ? i % 41 - 20 : 0;
  }
  double product(u32 m, u32 n) const {
    double sum = c[m][n];
    for (int k = 0; k < 16; ++k) sum += a_value[m][k] * b_value[k][n];
    return sum;
  }
};

// Where element e of a lane's accumulators [2][4][4] lies.
static u32 row_of(u32 lane, u32 e) { return e / 16 * 16 + lane / 4 + e / 2 % 2 * 8; }
static u32 column_of(u32 lane, u32 e) { return e / 4 % 4 * 8 + lane % 4 * 2 + e % 2; }

static void test_mma(Type type, const Named& s) {
  const Matrices x(type, true);
  Buffer<float> out(32 * 32), d(32 * 32);
  Buffer<u32> a(32 * 8), b(32 * 8);
  for (u32 lane = 0; lane < 32; ++lane) {
    const u32 g = lane / 4, t = lane % 4;
    for (u32 e = 0; e < 32; ++e) d[lane * 32 + e] = static_cast<float>(x.c[row_of(lane, e)][column_of(lane, e)]);
    for (u32 e = 0; e < 8; ++e) {
      const u32 m = e / 4 * 16 + g + e % 2 * 8, a_k = 2 * t + e / 2 % 2 * 8;
      a[lane * 8 + e] = x.a[m][a_k] | u32{x.a[m][a_k + 1]} << 16;
      const u32 n = e / 2 * 8 + g, b_k = 2 * t + e % 2 * 8;
      b[lane * 8 + e] = x.b[b_k][n] | u32{x.b[b_k + 1][n]} << 16;
    }
  }
  const std::string name = type == Type::Bf16 ? "unit_mma_bf16" : "unit_mma_f16";
  std::string error = launch(name, s.schedule, {{1, 1, 1}, {32, 1, 1}, 0}, out.data(), d.data(), a.data(), b.data());
  int wrong = 0;
  for (u32 i = 0; i < 1024; ++i) {
    wrong += static_cast<double>(out[i]) != x.product(row_of(i / 32, i % 32), column_of(i / 32, i % 32));
  }
  check(name + ", " + s.name, error.empty() && !wrong, error);
}

static void test_mma_smem(Type type, const Named& s) {
  const Matrices x(type, false);
  Buffer<float> separate(1024), fused(1024);
  Buffer<u16> a(512), w(512);
  for (u32 i = 0; i < 512; ++i) {
    a[i] = x.a[i / 16][i % 16];
    w[i] = x.b[i % 16][i / 16];
  }
  const std::string name = type == Type::Bf16 ? "unit_mma_smem_bf16" : "unit_mma_smem_f16";
  const Shape shape{{1, 1, 1}, {32, 1, 1}, 2048};
  std::string error = launch(name, s.schedule, shape, separate.data(), fused.data(), a.data(), w.data());
  int wrong = 0;
  for (u32 i = 0; i < 1024; ++i) {
    const double wanted = x.product(row_of(i / 32, i % 32), column_of(i / 32, i % 32));
    wrong += static_cast<double>(separate[i]) != wanted || static_cast<double>(fused[i]) != wanted;
  }
  check(name + ", " + s.name, error.empty() && !wrong, error);
}

// ---- threads ------------------------------------------------------------------------------------------------------

static u32 expected_shuffle(const std::vector<u32>& x, u32 i, u32 what) {
  const u32 lane = i % 32, warp = i - lane;
  auto at = [&](u32 l) { return x[warp + l]; };
  u32 ballot = 0, any = 0, all = 1;
  for (u32 l = 0; l < 32; ++l) {
    ballot |= static_cast<u32>(at(l) % 3 == 0) << l;
    any |= at(l) % 5 == 0;
    all &= at(l) < 1000;
  }
  switch (what) {
    case 0: return at(lane >= 3 ? lane - 3 : lane);
    case 1: return at(lane % 16 + 5 < 16 ? lane + 5 : lane);
    case 2: return at(lane ^ 6);
    case 3: return at(lane / 8 * 8 + 3);
    case 4: return at(31);
    case 5: return ballot;
    case 6: return any * 2 + all;
    default: return lane < 16 ? at(lane ^ 1) + 1 : at(lane ^ 2) + 2;
  }
}

static void test_shuffles(const Named& s) {
  Buffer<u32> out(128 * 8), x(128);
  Random random;
  for (u32 i = 0; i < 128; ++i) x[i] = static_cast<u32>(random.next() % 1004);
  std::string error = launch("unit_shuffles", s.schedule, {{2, 1, 1}, {64, 1, 1}, 0}, out.data(), x.data());
  int wrong = 0;
  for (u32 i = 0; i < 1024; ++i) wrong += out[i] != expected_shuffle(x.copy(), i / 8, i % 8);
  check("unit_shuffles, " + s.name, error.empty() && !wrong, error);
}

static void test_counts(const Named& s) {
  constexpr u32 BLOCKS = 6;
  Buffer<u32> out(BLOCKS * 4), done(4), x(BLOCKS * 96);
  done.fill(0);
  for (u32 i = 0; i < BLOCKS * 96; ++i) x[i] = (i * 7 + i / 96) % (i / 96 < 3 ? 91 : 101);
  const Shape shape{{BLOCKS, 1, 1}, {96, 1, 1}, 0};
  std::string error = launch("unit_counts", s.schedule, shape, out.data(), done.data(), x.data());
  u32 wrong = 0, last = 0;
  for (u32 block = 0; block < BLOCKS; ++block) {
    u32 odd = 0, any = 0, all = 1;
    for (u32 i = block * 96; i < block * 96 + 96; ++i) {
      odd += x[i] % 2;
      any |= x[i] > 90;
      all &= x[i] < 100;
    }
    wrong += out[block * 4] != odd || out[block * 4 + 1] != any || out[block * 4 + 2] != all;
    last += out[block * 4 + 3];
  }
  check("unit_counts, " + s.name, error.empty() && !wrong && last == 1, error);
}

static void test_named_barriers(const Named& s) {
  Buffer<u32> out(128);
  std::string error = launch("unit_named_barriers", s.schedule, {{1, 1, 1}, {128, 1, 1}, 0}, out.data());
  int wrong = 0;
  for (u32 i = 0; i < 128; ++i) {
    const u32 writer = i / 64 * 64 + (i + 1) % 32;
    wrong += out[i] != (i / 32 % 2 ? 6000 + 4 * writer : 0);
  }
  check("unit_named_barriers, " + s.name, error.empty() && !wrong, error);
}

// ---- copies -------------------------------------------------------------------------------------------------------

static void test_cp_async(const Named& s) {
  Buffer<u32> before(8), after(8), x(4);
  for (u32 i = 0; i < 4; ++i) x[i] = i + 1;
  const Shape shape{{1, 1, 1}, {1, 1, 1}, 32};
  std::string error = launch("unit_cp_async", s.schedule, shape, before.data(), after.data(), x.data());
  int wrong = 0;
  for (u32 i = 0; i < 8; ++i) {
    const u32 arrived = i < 4 ? i + 1 : 0, poison = 0xffffffffu;
    wrong += after[i] != arrived;
    if (s.schedule.async == 0) wrong += before[i] != arrived;
    if (s.schedule.async == 1) wrong += before[i] != poison;
    if (s.schedule.async == 2) wrong += before[i] != arrived && before[i] != poison;
  }
  check("unit_cp_async, " + s.name, error.empty() && !wrong, error);
}

// A box that reaches over three edges of an image of 72 channels, 5 x 4 pixels, 2 images.
static void test_tma_4d(const Named& s) {
  constexpr int C = 72, W = 5, H = 4, N = 2;
  Buffer<u16> x(C * W * H * N), out(64 * 12);
  for (u32 i = 0; i < x.size(); ++i) x[i] = static_cast<u16>(i + 1);
  TensorMap map;
  std::string error = encode(&map, 2, x.data(), {C, W, H, N}, {64, 4, 3, 1}, 128);
  const int c0 = 16, x0 = -1, y0 = 2, n0 = 1;
  const Shape shape{{1, 1, 1}, {64, 1, 1}, 2048 + 8};
  if (error.empty()) error = launch("unit_tma_4d", s.schedule, shape, out.data(), map, c0, x0, y0, n0);
  int wrong = 0;
  for (int row = 0; row < 12; ++row) {
    for (int c = 0; c < 64; ++c) {
      const int px = x0 + row % 4, py = y0 + row / 4, pc = c0 + c;
      const bool inside = px >= 0 && px < W && py >= 0 && py < H && pc < C;
      const int at = row * 128 + ((c / 8 ^ row % 8) << 4) + c % 8 * 2;
      const u16 wanted = inside ? x[static_cast<size_t>(((n0 * H + py) * W + px) * C + pc)] : u16{0};
      wrong += out[static_cast<size_t>(at / 2)] != wanted;
    }
  }
  check("unit_tma_4d, " + s.name, error.empty() && !wrong, error);
}

void test_units(u64 seeds) {
  for (const Named& s : schedules(seeds)) {
    test_ldmatrix(s);
    test_stmatrix(s);
    for (Type type : {Type::Bf16, Type::F16}) {
      test_mma(type, s);
      test_mma_smem(type, s);
    }
    test_shuffles(s);
    test_counts(s);
    test_named_barriers(s);
    test_cp_async(s);
    test_tma_4d(s);
  }
}
