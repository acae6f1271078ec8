// ldmatrix, stmatrix and mma.sync, for bf16 and f16. The last lane of the warp does the work of all 32: operands are
// unpacked into small row-major float matrices, multiplied by product16, and the result goes back to the lanes.
//
// With g = lane / 4, t = lane % 4: ldmatrix gives lane l word t of row g of a tile (transposed: halves (2t, g) and
// (2t + 1, g)); fragments of m16n8k16 are a0 (g, 2t) a1 (g + 8, 2t) a2 (g, 2t + 8) a3 (g + 8, 2t + 8), pairs along k;
// b0 (k = 2t, n = g) b1 (k = 2t + 8); c0, c1 (g, 2t .. 2t + 1), c2, c3 (g + 8, ..).
#include "state.h"

namespace emu {

constexpr int MAX_I = 8, MAX_J = 16;  // tiles of one mma call: 128 x 128

static float to_float(u16 x, Half kind) { return kind == Half::Bf16 ? bf16_to_f32(x) : f16_to_f32(x); }

// ---- ldmatrix and stmatrix ----------------------------------------------------------------------------------------

struct MatrixMove {
  u32* load_to;
  const u32* store_from;
  const u32* address;
};

static void check_row(u32 address, int lane, const char* what) {
  if (EMU_UNLIKELY(address % 16)) fail("%s: lane %d: address 0x%x is not a multiple of 16", what, lane, address);
}

// Eight rows of 16 bytes are free of bank conflicts when they cover all eight groups of banks.
static void count_conflicts(u32 bank_groups) {
  core->stats.ldmatrix_rows += 8;
  core->stats.conflicting_rows += 8 - static_cast<u32>(__builtin_popcount(bank_groups));
}

static u32 pair_of(const u32 (&row)[8][4], int r, int column) {
  const int shift = 16 * (column & 1);
  return (row[r][column >> 1] >> shift & 0xffffu) | (row[r + 1][column >> 1] >> shift & 0xffffu) << 16;
}

static void load_tile(const MatrixMove* const (&move)[32], int i, int tile, bool transposed) {
  u32 row[8][4], bank_groups = 0;
  for (int r = 0; r < 8; ++r) {
    const u32 address = move[tile * 8 + r]->address[i];
    check_row(address, tile * 8 + r, "ldmatrix");
    const u8* from = shared_ptr(address, 16, "ldmatrix");
    reads(from, 16);
    has_read(address);
    copy_bytes(row[r], from, 16);
    bank_groups |= 1u << (address >> 4 & 7);
  }
  count_conflicts(bank_groups);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane >> 2, t = lane & 3;
    move[lane]->load_to[i * 4 + tile] = transposed ? pair_of(row, 2 * t, g) : row[g][t];
  }
}

static void store_tile(const MatrixMove* const (&move)[32], int i, int tile, bool transposed) {
  u16 row[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane >> 2, t = lane & 3;
    const u32 pair = move[lane]->store_from[i * 4 + tile];
    u16& low = transposed ? row[2 * t][g] : row[g][2 * t];
    u16& high = transposed ? row[2 * t + 1][g] : row[g][2 * t + 1];
    low = static_cast<u16>(pair);
    high = static_cast<u16>(pair >> 16);
  }
  for (int r = 0; r < 8; ++r) {
    const u32 address = move[tile * 8 + r]->address[i];
    check_row(address, tile * 8 + r, "stmatrix");
    u8* to = shared_ptr(address, 16, "stmatrix");
    writes(to, 16);
    copy_bytes(to, row[r], 16);
  }
}

template <class F> static void move_tiles(const MatrixMove& mine, int n, Op op, const char* file, int line, F each) {
  Lane* lane = running();
  lane->warp->operands[lane->lane] = &mine;
  if (!arrive(FULL_MASK, op, file, line)) return;
  const MatrixMove* move[32];
  for (int i = 0; i < 32; ++i) move[i] = static_cast<const MatrixMove*>(lane->warp->operands[i]);
  for (int i = 0; i < n; ++i) {
    for (int tile = 0; tile < 4; ++tile) each(move, i, tile);
  }
}

void ldmatrix(u32* r, const u32* address, int n, bool transposed, const char* file, int line) {
  const MatrixMove mine{r, nullptr, address};
  move_tiles(mine, n, transposed ? Op::LdmatrixTrans : Op::Ldmatrix, file, line,
             [=](const MatrixMove* const(&move)[32], int i, int tile) { load_tile(move, i, tile, transposed); });
}

void stmatrix(const u32* r, const u32* address, int n, bool transposed, const char* file, int line) {
  const MatrixMove mine{nullptr, r, address};
  move_tiles(mine, n, transposed ? Op::StmatrixTrans : Op::Stmatrix, file, line,
             [=](const MatrixMove* const(&move)[32], int i, int tile) { store_tile(move, i, tile, transposed); });
}

// ---- mma ----------------------------------------------------------------------------------------------------------

struct MmaOperands {
  float* d;
  const u32 *a, *b;        // registers
  const u32 *a_at, *b_at;  // or addresses
};

template <Half KIND> static void put_pair(float* to, u32 pair) {
  const float both[2] = {to_float(static_cast<u16>(pair), KIND), to_float(static_cast<u16>(pair >> 16), KIND)};
  __builtin_memcpy(to, both, sizeof both);
}

template <Half KIND> static void unpack_a(float* a, const u32* r, int g, int t) {
  float* p = a + g * 16 + 2 * t;
  put_pair<KIND>(p, r[0]);
  put_pair<KIND>(p + 8 * 16, r[1]);
  put_pair<KIND>(p + 8, r[2]);
  put_pair<KIND>(p + 8 * 16 + 8, r[3]);
}
template <Half KIND> static void unpack_b(float* b, const u32* r, int n, int t) {
  float* p = b + 2 * t * n;
  p[0] = to_float(static_cast<u16>(r[0]), KIND);
  p[n] = to_float(static_cast<u16>(r[0] >> 16), KIND);
  p[8 * n] = to_float(static_cast<u16>(r[1]), KIND);
  p[9 * n] = to_float(static_cast<u16>(r[1] >> 16), KIND);
}

template <Half KIND> static void unpack_registers(const MmaOperands* const (&lanes)[32], int tiles_i, int tiles_j) {
  TensorSpace& w = core->space;
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane >> 2, t = lane & 3;
    for (int i = 0; i < tiles_i; ++i) unpack_a<KIND>(w.a + i * 256, lanes[lane]->a + 4 * i, g, t);
    for (int j = 0; j < tiles_j; ++j) unpack_b<KIND>(w.b + j * 8 + g, lanes[lane]->b + 2 * j, tiles_j * 8, t);
  }
}

// A row of eight halves at a shared address, as ldmatrix would read it.
template <Half KIND> static void load_row(float (&to)[8], u32 address, int lane) {
  check_row(address, lane, "ldmatrix");
  const u8* from = shared_ptr(address, 16, "ldmatrix");
  reads(from, 16);
  u16 halves[8];
  copy_bytes(halves, from, 16);
  for (int e = 0; e < 8; ++e) to[e] = to_float(halves[e], KIND);
}

// What ldmatrix of both operands and the fragments together amount to: rows of A as they are, rows of B to columns.
template <Half KIND> static void unpack_shared(const MmaOperands* const (&lanes)[32], int tiles_i, int tiles_j) {
  TensorSpace& w = core->space;
  const int n = tiles_j * 8;
  for (int tile = 0; tile < 4; ++tile) {
    for (int i = 0; i < tiles_i; ++i) {
      u32 bank_groups = 0;
      for (int r = 0; r < 8; ++r) {
        const u32 address = lanes[tile * 8 + r]->a_at[i];
        float row[8];
        load_row<KIND>(row, address, tile * 8 + r);
        __builtin_memcpy(w.a + (i * 16 + tile % 2 * 8 + r) * 16 + tile / 2 * 8, row, sizeof row);
        bank_groups |= 1u << (address >> 4 & 7);
      }
      count_conflicts(bank_groups);
    }
    for (int j = 0; j < tiles_j / 2; ++j) {
      u32 bank_groups = 0;
      for (int r = 0; r < 8; ++r) {
        const u32 address = lanes[tile * 8 + r]->b_at[j];
        float row[8];
        load_row<KIND>(row, address, tile * 8 + r);
        float* to = w.b + tile % 2 * 8 * n + j * 16 + tile / 2 * 8 + r;
        for (int e = 0; e < 8; ++e) to[e * n] = row[e];
        bank_groups |= 1u << (address >> 4 & 7);
      }
      count_conflicts(bank_groups);
    }
  }
}

// Accumulators to the matrix C, or back.
template <bool TO_LANES>
static void move_accumulators(const MmaOperands* const (&lanes)[32], int tiles_i, int tiles_j) {
  TensorSpace& w = core->space;
  const int n = tiles_j * 8;
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane >> 2, t = lane & 3;
    for (int i = 0; i < tiles_i; ++i) {
      for (int j = 0; j < tiles_j; ++j) {
        float* d = lanes[lane]->d + (i * tiles_j + j) * 4;
        float* c = w.c + (i * 16 + g) * n + j * 8 + 2 * t;
        __builtin_memcpy(TO_LANES ? d : c, TO_LANES ? c : d, 8);
        __builtin_memcpy(TO_LANES ? d + 2 : c + 8 * n, TO_LANES ? c + 8 * n : d + 2, 8);
      }
    }
  }
}

static void multiply(const MmaOperands& mine, int tiles_i, int tiles_j, Half kind, Op op, const char* file, int line) {
  Lane* lane = running();
  lane->warp->operands[lane->lane] = &mine;
  if (!arrive(FULL_MASK, op, file, line)) return;
  if (tiles_i > MAX_I || tiles_j > MAX_J) fail("mma at %s:%d: more than %d x %d tiles", file, line, MAX_I, MAX_J);
  const MmaOperands* lanes[32];
  for (int i = 0; i < 32; ++i) lanes[i] = static_cast<const MmaOperands*>(lane->warp->operands[i]);
  const bool shared = op == Op::MmaSmem;
  if (kind == Half::Bf16) {
    shared ? unpack_shared<Half::Bf16>(lanes, tiles_i, tiles_j) : unpack_registers<Half::Bf16>(lanes, tiles_i, tiles_j);
  } else {
    shared ? unpack_shared<Half::F16>(lanes, tiles_i, tiles_j) : unpack_registers<Half::F16>(lanes, tiles_i, tiles_j);
  }
  move_accumulators<false>(lanes, tiles_i, tiles_j);
  product16(core->space.c, core->space.a, core->space.b, tiles_i * 16, tiles_j * 8);
  move_accumulators<true>(lanes, tiles_i, tiles_j);
}

void mma(float* d, const u32* a, const u32* b, int i, int j, Half kind, const char* file, int line) {
  const MmaOperands mine{d, a, b, nullptr, nullptr};
  multiply(mine, i, j, kind, Op::Mma, file, line);
}

void mma_smem(float* d, const u32* a_at, const u32* b_at, int i, int j, Half kind, const char* file, int line) {
  const MmaOperands mine{d, nullptr, nullptr, a_at, b_at};
  multiply(mine, i, j, kind, Op::MmaSmem, file, line);
}

}  // namespace emu
