// Rows in tiles, in vectors, and in the residual stream: layouts, and what is done to one row at a time.
//
// A tile has kTall rows of 64 bytes: n numbers of float, bf16 or int8. Tiled rows: [rows/kTall][columns/n][kTall][n].

#pragma once

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "polynomials.h"

namespace {

using Bf16 = uint16_t;
using Int8 = int8_t;
using Index = int64_t;

#ifdef AMX
constexpr Index kTall = 16;         // rows of a tile
constexpr Index kHigh = 2 * kTall;  // rows of a product that are made at once
constexpr char kFlipped = 0;        // bits of an Int8 that are stored flipped
#else
constexpr Index kTall = 12;
constexpr Index kHigh = kTall;
constexpr char kFlipped = -128;  // the sign: a product takes bytes without one, which are 128 more
#endif

constexpr Index kTile = 16;   // floats of a vector, and columns of weights in a tile
constexpr Index kStep = 32;   // columns of a tile of Bf16
constexpr Index kTileSize = kTile * kStep;
constexpr Index kBlock = 32;  // columns of a product that are made at once
constexpr Index kHead = 64;   // width of an attention head
constexpr float kLog2E = 1.44269504f, kSqrtHalf = 0.70710678f;

// What attention computes in, and what lies between two products: floats where these are of floats, and for Int8 on CPUs
// without instructions for Bf16.
#ifdef FLOATS
template <class Number>
using Between = std::conditional_t<std::is_same_v<Number, Bf16>, Bf16, float>;
#else
template <class Number>
using Between = std::conditional_t<std::is_same_v<Number, float>, float, Bf16>;
#endif

// Tiled rows that go into a product; those of Int8 are to be multiplied by each row's scale.
template <class Number>
struct Rows {
  static constexpr Index kColumns = 64 / sizeof(Number);  // of a tile
  Number* values;
  float* scales;
  Index width;

  Number* at(Index row, Index column) const {
    return values + row / kTall * kTall * width + row % kTall * kColumns + column / kColumns * kTall * kColumns +
           column % kColumns;
  }
  Rows from(Index row) const { return {values + row * width, scales + row, width}; }
};

// The residual stream in blocks of kHigh x 32, one after the other: rows as they are would be a page apart.
struct Stream {
  float* values;
  Index width;

  float* at(Index row, Index column) const {
    return values + row / kHigh * kHigh * width + column / kBlock * kHigh * kBlock + row % kHigh * kBlock +
           column % kBlock;
  }
  Stream from(Index row) const { return {values + row * width, width}; }
};

Index up_to(Index count, Index multiple) { return (count + multiple - 1) / multiple * multiple; }

inline __m512i narrow(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

// Stores 32 numbers; the last 16 floats are `next` floats behind the first.
inline void store(Bf16* to, Index, __m512 low, __m512 high) { _mm512_store_si512(to, narrow(low, high)); }

inline void store(float* to, Index next, __m512 low, __m512 high) {
  _mm512_store_ps(to, low);
  _mm512_store_ps(to + next, high);
}

// Stores 32 columns of a row, from the given one on.
template <class Number>
inline void store(const Rows<Number>& to, Index row, Index column, __m512 low, __m512 high) {
  store(to.at(row, column), kTall * kTile, low, high);
}

inline __m512 widen(const float* from) { return _mm512_load_ps(from); }

inline __m512 widen(const Bf16* from) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

template <size_t count>
inline __m512 polynomial(const float (&coefficients)[count], __m512 x) {
  __m512 y = _mm512_set1_ps(coefficients[0]);
  for (size_t i = 1; i < count; i++) y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(coefficients[i]));
  return y;
}

// 2^x, as exact as T. NaN stays NaN, for the caller to find in the output.
template <class T>
inline __m512 power_of_2(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-126.f), x);  // numbers below a float's normal ones are slow
  const __m512 whole = _mm512_roundscale_ps(x, 0);
  const __m512 rest = _mm512_sub_ps(x, whole);
  if constexpr (std::is_same_v<T, float>)
    return _mm512_scalef_ps(polynomial(kExactPowerOf2, rest), whole);
  else
    return _mm512_scalef_ps(polynomial(kPowerOf2, rest), whole);
}

// x Phi(x), as exact as T.
template <class T>
inline __m512 gelu(__m512 x) {
  const __m512 half = _mm512_set1_ps(0.5f), one = _mm512_set1_ps(1.f);
  if constexpr (std::is_same_v<T, float>) {
    const __m512 size = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(kSqrtHalf));
    const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(size, _mm512_set1_ps(kErfcScale), one));
    const __m512 exponent = _mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-kLog2E / 2));
    const __m512 least = _mm512_set1_ps(-115.f);  // the tail is a normal float, too
    const __m512 power = power_of_2<float>(_mm512_max_ps(least, exponent));
    const __m512 tail = _mm512_mul_ps(half, _mm512_mul_ps(polynomial(kErfc, t), power));
    const __mmask16 positive = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ);
    return _mm512_mul_ps(x, _mm512_mask_sub_ps(tail, positive, one, tail));
  } else {
    const __m512 t = _mm512_max_ps(_mm512_set1_ps(-4.f), _mm512_min_ps(_mm512_set1_ps(4.f), x));
    return _mm512_mul_ps(x, _mm512_fmadd_ps(polynomial(kPhi, _mm512_mul_ps(t, t)), t, half));
  }
}

// Sixteen rows of sixteen words -> the tile of the transposed product: first words of all rows, one after the other.
inline void transpose(const uint32_t* rows, Index stride, uint32_t* tile) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(rows + i * stride);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
      a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
    }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 2; j++) {
      b[i + 8 * j] = _mm512_shuffle_i32x4(a[i + 8 * j], a[i + 8 * j + 4], 0x88);
      b[i + 8 * j + 4] = _mm512_shuffle_i32x4(a[i + 8 * j], a[i + 8 * j + 4], 0xdd);
    }
  for (int i = 0; i < 8; i++) {
    _mm512_store_si512(tile + i * kTile, _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
    _mm512_store_si512(tile + (i + 8) * kTile, _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
  }
}

// ---- What the threads of a team do; what has a barrier, all of them call ----

struct Span {
  Index first, last;
};

Span my_share(Index count) {
  const Index me = omp_get_thread_num(), all = omp_get_num_threads();
  return {count * me / all, count * (me + 1) / all};
}

constexpr float kLargest = 127.f;          // quantized number
constexpr int32_t kSmallest = 0x0d800000;  // bits of the least largest value of a row, 8e-31: zeros have a scale, too

// Calls `work(c, number)` for each 16 columns; four of them in turn have the numbers 0 to 3.
template <class Work>
inline void for_columns(Index width, Work work) {
  for (Index c = 0; c < width; c += kHead)
    for (Index i = 0; i < 4; i++) work(c + 16 * i, i);
}

// Four sums, each of which waits for its own last addition only.
struct Sums {
  __m512 each[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};

  float total() const {
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(each[0], each[1]), _mm512_add_ps(each[2], each[3])));
  }
};

// Rounds `value(c)`, 16 floats each, as a row.
template <class Value, class Number>
inline void round(Value value, float*, const Rows<Number>& to, Index r) {
  for (Index c = 0; c < to.width; c += kBlock) store(to, r, c, value(c), value(c + 16));
}

inline float with_bits(int32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// Quantizes a row: `value(c)` is called first, and then `again(c)`. Its scale is not finite where one of the values is not:
// whole numbers order as the sizes of floats, with NaN above all.
template <class Value, class Again>
inline void quantize(Value value, Again again, const Rows<Int8>& to, Index r) {
  const __m512i digits = _mm512_set1_epi32(0x7fffffff);
  __m512i sizes = _mm512_set1_epi32(kSmallest);
  for (Index c = 0; c < to.width; c += 16)
    sizes = _mm512_max_epi32(sizes, _mm512_and_si512(_mm512_castps_si512(value(c)), digits));
  const float largest = with_bits(_mm512_reduce_max_epi32(sizes));
  to.scales[r] = largest / kLargest;
  const __m512 inverse = _mm512_set1_ps(kLargest / largest);
  for (Index c = 0; c < to.width; c += 16) {
    const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(again(c), inverse));
    const __m128i bytes = _mm_xor_si128(_mm512_cvtsepi32_epi8(whole), _mm_set1_epi8(kFlipped));
    _mm_store_si128((__m128i*)to.at(r, c), bytes);
  }
}

// `row` has room for the values.
template <class Value>
inline void round(Value value, float* row, const Rows<Int8>& to, Index r) {
  auto kept = [=](Index c) {
    const __m512 y = value(c);
    _mm512_store_ps(row + c, y);
    return y;
  };
  quantize(kept, [=](Index c) { return _mm512_load_ps(row + c); }, to, r);
}

// Layer norm of the stream's rows; `row` has room for one.
template <class Number>
void normalise(const Stream& x, Index rows, const float* weight, const float* bias, float eps, const Rows<Number>& to,
               float* row) {
  const Span mine = my_share(rows);
  for (Index r = mine.first; r < mine.last; r++) {
    Sums sums, squares;
    for_columns(x.width, [&](Index c, Index i) {
      const __m512 y = _mm512_load_ps(x.at(r, c));
      _mm512_store_ps(row + c, y);
      sums.each[i] = _mm512_add_ps(sums.each[i], y);
    });
    const __m512 mean = _mm512_set1_ps(sums.total() / x.width);
    for_columns(x.width, [&](Index c, Index i) {
      const __m512 off = _mm512_sub_ps(_mm512_load_ps(row + c), mean);
      squares.each[i] = _mm512_fmadd_ps(off, off, squares.each[i]);
    });
    const __m512 scale = _mm512_set1_ps(1 / std::sqrt(squares.total() / x.width + eps));
    auto normal = [=](Index c) {
      const __m512 y = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(row + c), mean), scale);
      return _mm512_fmadd_ps(y, _mm512_loadu_ps(weight + c), _mm512_loadu_ps(bias + c));
    };
    round(normal, row, to, r);
  }
#pragma omp barrier
}

// Rows as a product takes them: as they are, or quantized to `to`.
template <class Number>
const Rows<Number>& rounded(const Rows<Number>& from, Index, const Rows<Number>&) {
  return from;
}

const Rows<Int8>& rounded(const Rows<float>& from, Index rows, const Rows<Int8>& to) {
  const Span mine = my_share(rows);
  for (Index r = mine.first; r < mine.last; r++) {
    auto value = [=](Index c) { return _mm512_load_ps(from.at(r, c)); };
    quantize(value, value, to, r);
  }
#pragma omp barrier
  return to;
}

const Rows<Int8>& rounded(const Rows<Bf16>& from, Index rows, const Rows<Int8>& to) {
  const Span mine = my_share(up_to(rows, kTall) / kTall);
  const __m512i odd = _mm512_set1_epi32(0xffff0000), order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  for (Index tile = mine.first; tile < mine.last; tile++) {
    const Bf16* in = from.values + tile * kTall * from.width;
    Int8* out = to.values + tile * kTall * to.width;
    __m512i sizes[kTall];
    for (auto& each : sizes) each = _mm512_setzero_si512();
    for (Index c = 0; c < from.width; c += kStep)
      for (Index r = 0; r < kTall; r++) {
        const __m512i size = _mm512_and_si512(_mm512_load_si512(in + c * kTall + r * kStep), _mm512_set1_epi16(0x7fff));
        sizes[r] = _mm512_max_epu16(sizes[r], size);
      }
    float inverse[kTall];
    for (Index r = 0; r < kTall; r++) {
      const __m512i size = _mm512_max_epu32(_mm512_slli_epi32(sizes[r], 16), _mm512_and_si512(sizes[r], odd));
      const int32_t largest = std::max(_mm512_reduce_max_epi32(size), kSmallest);
      to.scales[tile * kTall + r] = with_bits(largest) / kLargest;
      inverse[r] = kLargest / with_bits(largest);
    }
    for (Index c = 0; c < from.width; c += 2 * kStep)
      for (Index r = 0; r < kTall; r++) {
        auto whole = [&](Index c) {  // 32 columns in 16 bits
          const __m512i pairs = _mm512_load_si512(in + c * kTall + r * kStep);
          auto scaled = [&](__m512i x) {
            return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_castsi512_ps(x), _mm512_set1_ps(inverse[r])));
          };
          const __m512i low = scaled(_mm512_slli_epi32(pairs, 16)), high = scaled(_mm512_and_si512(pairs, odd));
          return _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_slli_epi32(high, 16));
        };
        const __m512i bytes = _mm512_packs_epi16(whole(c), whole(c + kStep));
        const __m512i stored = _mm512_xor_si512(_mm512_permutexvar_epi64(order, bytes), _mm512_set1_epi8(kFlipped));
        _mm512_store_si512(out + c * kTall + r * 2 * kStep, stored);
      }
  }
#pragma omp barrier
  return to;
}

}  // namespace
