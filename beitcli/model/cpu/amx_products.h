// The product of tiled rows and a linear map's weights, and what is done to its sums meanwhile.
//
// Weights are [out/32][in/n][2][16][16 outputs][n/16], where n numbers of bf16 or int8 have 64 bytes.

#pragma once

#include <utility>

#include "amx_tiles.h"

namespace {

template <class Number>
struct Linear {
  const Number* weight;
  const float *scales, *bias;  // of the outputs; scales are those of Int8, and there may be no bias
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

// Outputs of a row, from the given column on, from their sums.
inline __m512 outputs(const Rows<Bf16>&, const Linear<Bf16>& layer, Index, Index column, const float* sums) {
  const __m512 y = _mm512_load_ps(sums);
  return layer.bias ? _mm512_add_ps(y, _mm512_loadu_ps(layer.bias + column)) : y;
}

inline __m512 outputs(const Rows<Int8>& rows, const Linear<Int8>& layer, Index row, Index column, const float* sums) {
  const __m512 y = _mm512_cvtepi32_ps(_mm512_load_si512(sums));
  const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(rows.scales[row]), _mm512_loadu_ps(layer.scales + column));
  return layer.bias ? _mm512_fmadd_ps(y, scale, _mm512_loadu_ps(layer.bias + column)) : _mm512_mul_ps(y, scale);
}

// Rows through some blocks of a linear layer's columns; `use(row, column, low, high)` gets 32 columns of a row.
template <class Number, class Use>
void linear(const Rows<Number>& tiled, Index rows, const Linear<Number>& layer, Span columns, Use use) {
  constexpr Index kLine = Rows<Number>::kStep, kSize = kTile * kLine;  // of a tile's row, of a tile
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

}  // namespace
