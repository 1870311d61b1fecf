// Products and attention by AMX, Intel's matrix instructions.
//
// Products are blocks of 32 x 32 in four of the eight tiles, and what is done to a block (bias, GELU, residual, rounding)
// is done while the tiles are at the next one.

#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "attention.h"
#include "linear.h"

namespace {

constexpr Index kRows = 416;  // that go through a layer together: fewer need the weights more often, more no longer fit

struct alignas(64) Palette {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
const Palette kPalette;

// The compiler does not know that a tile instruction reads memory: what was stored before is stored before this.
inline void settle() { asm volatile("" ::: "memory"); }

// The tiles, while a thread uses them.
struct MatrixUnit {
  MatrixUnit() {
    syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */);
    settle();
    _tile_loadconfig(&kPalette);
  }
  ~MatrixUnit() { _tile_release(); }
};

// A block of the product, of floats or whole numbers, and where it belongs, until it is used.
struct Block {
  alignas(64) float sums[kBlock * kBlock];
  Index row = 0, rows = 0, column = 0;
};

// One step of a block: 32 or 16 rows in tiles 4 and 5, 32 columns in 6 and 7, sums in 0 to 3. Rows pass the first-level
// cache by, for the columns to stay there.
inline void multiply(const Bf16* upper, const Bf16* lower, const Bf16* weight) {
  _tile_stream_loadd(4, upper, 64);
  _tile_loadd(6, weight, 64);
  _tile_dpbf16ps(0, 4, 6);
  _tile_loadd(7, weight + kTileSize, 64);
  _tile_dpbf16ps(1, 4, 7);
  if (lower == nullptr) return;
  _tile_stream_loadd(5, lower, 64);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

inline void multiply(const Int8* upper, const Int8* lower, const Int8* weight) {
  _tile_stream_loadd(4, upper, 64);
  _tile_loadd(6, weight, 64);
  _tile_dpbssd(0, 4, 6);
  _tile_loadd(7, weight + 2 * kTileSize, 64);
  _tile_dpbssd(1, 4, 7);
  if (lower == nullptr) return;
  _tile_stream_loadd(5, lower, 64);
  _tile_dpbssd(2, 5, 6);
  _tile_dpbssd(3, 5, 7);
}

inline void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

inline void store_sums(float* to, Index stride) {
  _tile_stored(0, to, stride * 4);
  _tile_stored(1, to + kTile, stride * 4);
  _tile_stored(2, to + kTile * stride, stride * 4);
  _tile_stored(3, to + kTile * stride + kTile, stride * 4);
}

// Rows through some blocks of a linear layer's columns; `use(row, column, low, high)` gets 32 columns of a row.
template <class Number, class Use>
void linear(const Rows<Number>& tiled, Index rows, const Linear<Number>& layer, Span columns, Use use) {
  constexpr Index kLine = Rows<Number>::kColumns, kSize = kTile * kLine;  // of a tile's row, of a tile
  const Index in = tiled.width, steps = in / kLine, all_steps = steps * up_to(rows, kBlock) / kBlock;
  const Index ahead = up_to(steps * kBlock, all_steps) / all_steps;  // lines of the next weights to fetch in each step
  const Index some = up_to(kBlock, steps) / steps;                   // rows to use in each step
  auto use_rows = [&](const Block& block, Index first, Index last) {
    for (Index r = first; r < std::min(last, block.rows); r++) {
      const Index row = block.row + r, column = block.column;
      const float* sums = block.sums + r * kBlock;
      use(row, column, outputs(tiled, layer, row, column, sums), outputs(tiled, layer, row, column + 16, sums + 16));
    }
  };
  Block blocks[2];
  Block *made = &blocks[0], *used = &blocks[1];
  settle();
  for (Index block = columns.first; block < columns.last; block++) {
    const Number* weight = layer.weight + block * kBlock * in;
    const Number* next = weight + kBlock * in;  // behind the last there is none: fetching ahead never fails
    for (Index row = 0; row < rows; row += kBlock) {
      const Number* upper = tiled.values + row * in;
      const Number* lower = rows - row > kTile ? upper + kTile * in : nullptr;
      clear_sums();
      for (Index step = 0; step < steps; step++) {
        const Index at = step * kSize;
        multiply(upper + at, lower ? lower + at : nullptr, weight + 2 * at);
        for (Index line = 0; line < ahead; line++, next += kLine) _mm_prefetch((const char*)next, _MM_HINT_T1);
        use_rows(*used, step * some, (step + 1) * some);
      }
      store_sums(made->sums, kBlock);
      made->row = row, made->rows = std::min(kBlock, rows - row), made->column = block * kBlock;
      std::swap(made, used);
    }
  }
  use_rows(*used, 0, kBlock);
}

// Scores of 32 queries; `meanwhile()` is done in each of up_to(tokens, kTile) / kTile steps.
template <class Meanwhile>
void multiply_keys(const Bf16* queries, const Bf16* keys, Index across, float* scores, Meanwhile meanwhile) {
  settle();
  _tile_loadd(4, queries, kHead * 2);
  _tile_loadd(5, queries + kStep, kHead * 2);
  _tile_loadd(6, queries + kTile * kHead, kHead * 2);
  _tile_loadd(7, queries + kTile * kHead + kStep, kHead * 2);
  for (Index t = 0; t < across; t += kTile) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_stream_loadd(2, keys + t * kHead, 64);
    _tile_dpbf16ps(0, 4, 2);
    _tile_dpbf16ps(1, 6, 2);
    _tile_stream_loadd(3, keys + t * kHead + kTileSize, 64);
    _tile_dpbf16ps(0, 5, 3);
    _tile_dpbf16ps(1, 7, 3);
    meanwhile();
    _tile_stored(0, scores + t, across * 4);
    _tile_stored(1, scores + kTile * across + t, across * 4);
  }
}

// What 32 queries take of the values; `meanwhile()` is done in each of down / kTile steps.
template <class Meanwhile>
void multiply_values(const Bf16* shares, const Bf16* values, Index down, float* sums, Meanwhile meanwhile) {
  settle();
  for (Index half = 0; half < 2; half++) {
    clear_sums();
    for (Index t = 0; t < down; t += kStep) {
      const Bf16* part = values + t / kStep * 4 * kTileSize + half * 2 * kTileSize;
      _tile_loadd(4, shares + t, down * 2);
      _tile_stream_loadd(6, part, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_stream_loadd(7, part + kTileSize, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, shares + kTile * down + t, down * 2);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
      meanwhile();
    }
    store_sums(sums + half * kStep, kHead);
  }
}

// Attention of one head of one image, in rows from `row`, in the columns from `column`. While the vectors are at the
// softmax of 32 queries, the tiles are at the scores of the next and the values of the ones before.
void attend(const Head<Bf16>& head, Index tokens, const Own<Bf16>& own, const Rows<Bf16>& to, Index row, Index column) {
  const Index across = up_to(tokens, kTile), down = up_to(tokens, kStep), steps = across / kTile + down / kTile;
  lay_out(head, tokens, own);
  alignas(64) float sums[kBlock * kHead], scales[2][kBlock];
  const auto nothing = [] {};
  multiply_keys(head.queries, own.keys, across, own.scores, nothing);
  for (Index query = 0; query < tokens + kBlock; query += kBlock) {
    const Index now = query / kBlock % 2, rows = std::min(kBlock, tokens - query);
    const float* scores = own.scores + now * kBlock * across;
    Bf16* shares = own.shares + now * kBlock * down;
    Index done = 0, due = 0;
    auto soften_some = [&] {
      for (due += kBlock; due > 0 && done < rows; due -= steps, done++) {
        const Bf16* bias = head.bias + (query + done) * across;
        scales[now][done] = soften(scores + done * across, bias, across, shares + done * down);
      }
    };
    if (query + kBlock < tokens)
      multiply_keys(head.queries + (query + kBlock) * kHead, own.keys, across, own.scores + (1 - now) * kBlock * across,
                    soften_some);
    if (query) multiply_values(own.shares + (1 - now) * kBlock * down, own.values, down, sums, soften_some);
    while (done < rows) soften_some();
    for (Index r = 0; query && r < std::min(kBlock, tokens - query + kBlock); r++) {
      const __m512 factor = _mm512_set1_ps(scales[1 - now][r]);
      auto scaled = [&](Index c) { return _mm512_mul_ps(_mm512_load_ps(sums + r * kHead + c), factor); };
      for (Index c = 0; c < kHead; c += kStep)
        _mm512_store_si512(to.at(row + query - kBlock + r, column + c), narrow(scaled(c), scaled(c + 16)));
    }
  }
}

}  // namespace
