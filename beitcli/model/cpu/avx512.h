// Products and attention by AVX512's vectors, for CPUs that have no matrix instructions.
//
// A block of 12 rows and 32 columns has its sums in 24 of the 32 registers: columns come as vectors, from a core's
// second-level cache, and rows word by word.

#pragma once

#include "attention.h"
#include "linear.h"

namespace {

constexpr Index kRows = 396;  // that go through a layer together: 204 took 2 to 6 % longer, and 600 gained nothing

struct MatrixUnit {};  // vectors need none

// Where words are, of a float, two Bf16 or four Int8 each. Sixteen of a row follow one another, and then comes the next
// step.
struct Words {
  const int32_t* at;
  Index next, step;  // words to the next row, or vector of columns, and to the next step
};

inline Words words(const void* at, Index next, Index step) { return {(const int32_t*)at, next, step}; }

template <class Number>
using Sum = std::conditional_t<std::is_same_v<Number, Int8>, __m512i, __m512>;

// Adds the products of words.
template <class Number>
inline Sum<Number> multiply(Sum<Number> sum, __m512i row, __m512i columns) {
  if constexpr (std::is_same_v<Number, float>)
    return _mm512_fmadd_ps(_mm512_castsi512_ps(row), _mm512_castsi512_ps(columns), sum);
  else if constexpr (std::is_same_v<Number, Bf16>)
    return _mm512_dpbf16_ps(sum, (__m512bh)row, (__m512bh)columns);
  else
    return _mm512_dpbusd_epi32(sum, row, columns);
}

// Sums of a product: floats or, of Int8, whole numbers.
template <class Number, int vectors>
struct Block {
  Sum<Number> sums[kTall][vectors];

  // Begins with zeros or, where there are any, with `starts`.
  explicit Block(const int32_t* starts = nullptr) {
    for (auto& row : sums)
      for (int v = 0; v < vectors; v++)
        row[v] = (Sum<Number>)(starts ? _mm512_loadu_si512(starts + v * kTile) : _mm512_setzero_si512());
  }

  // Adds the product of rows and columns.
  void add(Words rows, Words columns, Index steps) {
    for (Index step = 0; step < steps; step++, rows.at += rows.step, columns.at += columns.step)
#pragma GCC unroll 4
      for (Index word = 0; word < kTile; word++) {
        __m512i column[vectors];
        for (int v = 0; v < vectors; v++) column[v] = _mm512_load_si512(columns.at + v * columns.next + word * kTile);
#pragma GCC unroll 12
        for (Index r = 0; r < kTall; r++) {
          const __m512i row = _mm512_set1_epi32(rows.at[r * rows.next + word]);
          for (int v = 0; v < vectors; v++) sums[r][v] = multiply<Number>(sums[r][v], row, column[v]);
        }
      }
  }

  void store(float* to, Index stride) const {
    for (Index r = 0; r < kTall; r++)
      for (int v = 0; v < vectors; v++) _mm512_store_si512(to + r * stride + v * kTile, (__m512i)sums[r][v]);
  }
};

// Rows through some blocks of a linear layer's columns; `use(row, column, low, high)` gets 32 columns of a row.
template <class Number, class Use>
void linear(const Rows<Number>& tiled, Index rows, const Linear<Number>& layer, Span columns, Use use) {
  constexpr Index kLine = Rows<Number>::kColumns, kWords = kTile * kTile;  // of a tile's row, of a tile of weights
  const Index in = tiled.width, steps = in / kLine, blocks = up_to(rows, kTall) / kTall;
  const Index ahead = up_to(steps * kBlock, blocks) / blocks;  // lines of the next weights to fetch with each block
  for (Index column = columns.first * kBlock; column < columns.last * kBlock; column += kBlock) {
    const Number* weight = layer.weight + column * in;
    const Number* next = weight + kBlock * in;  // behind the last there is none: fetching ahead never fails
    for (Index first = 0; first < rows; first += kTall) {
      for (Index line = 0; line < ahead; line++, next += kLine) _mm_prefetch((const char*)next, _MM_HINT_T1);
      Block<Number, 2> block(std::is_same_v<Number, Int8> ? layer.starts + column : nullptr);
      block.add(words(tiled.values + first * in, kTile, kTall * kTile), words(weight, kWords, 2 * kWords), steps);
      alignas(64) float sums[kTall * kBlock];
      block.store(sums, kBlock);
      for (Index r = 0; r < std::min(kTall, rows - first); r++) {
        const float* at = sums + r * kBlock;
        use(first + r, column, outputs(tiled, layer, first + r, column, at),
            outputs(tiled, layer, first + r, column + kTile, at + kTile));
      }
    }
  }
}

// Scores of 12 queries for as many vectors of keys.
template <int vectors, class T>
inline void multiply_keys(const T* queries, const T* keys, float* scores, Index across) {
  constexpr Index row = kHead * sizeof(T) / 4;  // words
  Block<T, vectors> block;
  block.add(words(queries, row, kTile), words(keys, row * kTile, kTile * kTile), row / kTile);
  block.store(scores, across);
}

// Attention of one head of one image, in rows from `row`, in the columns from `column`.
template <class T>
void attend(const Head<T>& head, Index tokens, const Own<T>& own, const Rows<T>& to, Index row, Index column) {
  const Index across = up_to(tokens, kTile), down = up_to(tokens, Rows<T>::kColumns);
  constexpr Index tile = kTile * kTile * 4 / sizeof(T);  // numbers
  lay_out(head, tokens, own);
  for (Index query = 0; query < tokens; query += kTall) {
    const Index rows = std::min(kTall, tokens - query);
    const T* queries = head.queries + query * kHead;
    Index t = 0;
    for (; t + kTile < across; t += 2 * kTile) multiply_keys<2>(queries, own.keys + t * kHead, own.scores + t, across);
    if (t < across) multiply_keys<1>(queries, own.keys + t * kHead, own.scores + t, across);
    float scales[kTall];
    for (Index r = 0; r < rows; r++)
      scales[r] = soften(own.scores + r * across, head.bias + (query + r) * across, across, own.shares + r * down);
    for (Index half = 0; half < 2; half++) {
      Block<T, 2> block;
      block.add(words(own.shares, down * sizeof(T) / 4, kTile),
                words(own.values + half * 2 * tile, kTile * kTile, 4 * kTile * kTile), down / Rows<T>::kColumns);
      for (Index r = 0; r < rows; r++) {
        auto scaled = [&](int v) { return _mm512_mul_ps(block.sums[r][v], _mm512_set1_ps(scales[r])); };
        store(to, row + query + r, column + half * kBlock, scaled(0), scaled(1));
      }
    }
  }
}

}  // namespace
