// The layers of a BEiT on a CPU with AMX, Intel's matrix instructions: amx.py compiles and calls this.
//
// Few enough rows go through a layer together that their activations stay in a core's second-level cache, and the
// weights of the next columns are fetched meanwhile. Products are blocks of 32 x 32 in four of the eight tiles, and
// what is done to a block (bias, GELU, residual, rounding) is done while the tiles are at the next one. The residual
// stream stays in float32; only what goes into a product is rounded: to bf16, or for linear maps of 8 bits to whole
// numbers with a scale for each row, of the inner layer for each part of a row.
//
// Layouts are of tiles, 16 rows of 64 bytes, which one instruction loads: n numbers of bf16 or int8. Tiled rows:
// [rows/16][columns/n][16][n]. Weights: [out/32][in/n][2][16][16 outputs][n/16], those of `down` so for each part of its
// inputs.

#include <immintrin.h>
#include <omp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace {

using Bf16 = uint16_t;
using Int8 = int8_t;
using Index = int64_t;

constexpr Index kTile = 16;   // rows of a tile
constexpr Index kStep = 32;   // columns of a tile of Bf16
constexpr Index kTileSize = kTile * kStep;
constexpr Index kBlock = 32;  // rows and columns of a product that are made at once
constexpr Index kHead = 64;   // width of an attention head
constexpr Index kRows = 416;  // that go through a layer together: fewer need the weights more often, more no longer fit
constexpr float kLog2E = 1.44269504f;
constexpr float kLargest = 127.f;    // quantized number
constexpr int32_t kSmallest = 0x0d800000;  // bits of a row's smallest largest value, 8e-31: a row of zeros has a scale too
// Where a row's powers of 2 sum up to more or less, its highest score is subtracted first: finding it takes time.
constexpr float kLeastSum = 1e-20f, kMostSum = 1e20f;

// Tiled rows that go into a product; those of Int8 are to be multiplied by each row's scale.
template <class Number>
struct Rows {
  static constexpr Index kStep = 64 / sizeof(Number);
  Number* values;
  float* scales;
  Index width;

  Number* at(Index row, Index column) const {
    return values + row / kTile * kTile * width + row % kTile * kStep + column / kStep * kTile * kStep + column % kStep;
  }
  Rows from(Index row) const { return {values + row * width, scales + row, width}; }
};

// The residual stream in blocks of 32 x 32, one after the other: rows as they are would be a page apart.
struct Stream {
  float* values;
  Index width;

  float* at(Index row, Index column) const {
    return values + row / kBlock * kBlock * width + column / kBlock * kBlock * kBlock + row % kBlock * kBlock +
           column % kBlock;
  }
  Stream from(Index row) const { return {values + row * width, width}; }
};

template <class Number>
struct Linear {
  const Number* weight;
  const float *scales, *bias;  // of the outputs; scales are those of Int8, and there may be no bias
};

template <class Number>
struct Layer {
  const float *before_weight, *before_bias, *after_weight, *after_bias;  // of the layer norms
  Linear<Number> qkv, out, up, down;  // of `qkv` come 64 queries, 64 keys and 64 values for each head
  const Bf16* bias;  // of positions: [heads or 1][tokens][tokens up to a tile], -1e30 behind the last token
};

struct Shape {
  Index tokens, hidden, inner, heads;
  Index part;         // columns of the inner layer that are made, and used up, at a time
  Index bias_stride;  // of positions, from one head's to the next's
  float eps;
};

Index up_to(Index count, Index multiple) { return (count + multiple - 1) / multiple * multiple; }

// ---- Tiles and vectors ----

struct alignas(64) Palette {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
const Palette kPalette;

// The compiler does not know that a tile instruction reads memory: what was stored before is stored before this.
inline void settle() { asm volatile("" ::: "memory"); }

void begin_tiles() {
  settle();
  _tile_loadconfig(&kPalette);
}

inline __m512i narrow(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

inline __m512 widen(const Bf16* from) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

// 2^x, with a relative error of 7.5e-5: a minimax polynomial over -0.5...0.5. NaN stays NaN, for the caller to find in the
// output.
inline __m512 power_of_2(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-126.f), x);  // numbers below a float's normal ones are slow
  const __m512 whole = _mm512_roundscale_ps(x, 0);
  const __m512 rest = _mm512_sub_ps(x, whole);
  __m512 y = _mm512_set1_ps(5.51717746e-2f);
  for (float factor : {2.42611372e-1f, 6.9326097e-1f, 9.99928027e-1f})
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(factor));
  return _mm512_scalef_ps(y, whole);
}

// x Phi(x), with an error of 2e-4: a minimax polynomial of odd powers for Phi(x) - 1/2 over -4...4, beyond which Phi is 0
// or 1.
inline __m512 gelu(__m512 x) {
  const __m512 t = _mm512_max_ps(_mm512_set1_ps(-4.f), _mm512_min_ps(_mm512_set1_ps(4.f), x));
  const __m512 square = _mm512_mul_ps(t, t);
  __m512 y = _mm512_set1_ps(2.25887869e-8f);
  for (float factor :
       {-1.58885748e-6f, 4.77645046e-5f, -8.1219361e-4f, 8.76372137e-3f, -6.45544794e-2f, 3.97870313e-1f})
    y = _mm512_fmadd_ps(y, square, _mm512_set1_ps(factor));
  return _mm512_mul_ps(x, _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.5f)));
}

// Sixteen rows of sixteen pairs -> the tile of the transposed product: pairs of all rows, one after the other.
inline void transpose_pairs(const Bf16* rows, Index stride, Bf16* tile) {
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
    _mm512_store_si512(tile + i * kStep, _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
    _mm512_store_si512(tile + (i + 8) * kStep, _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
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
template <class Value>
inline void round(Value value, float*, const Rows<Bf16>& to, Index r) {
  for (Index c = 0; c < to.width; c += kStep) _mm512_store_si512(to.at(r, c), narrow(value(c), value(c + 16)));
}

inline float with_bits(int32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// `row` has room for the values. Their scale is not finite where one of them is not: whole numbers order as the sizes of
// floats, with NaN above all.
template <class Value>
inline void round(Value value, float* row, const Rows<Int8>& to, Index r) {
  const __m512i digits = _mm512_set1_epi32(0x7fffffff);
  __m512i sizes = _mm512_set1_epi32(kSmallest);
  for (Index c = 0; c < to.width; c += 16) {
    const __m512 y = value(c);
    _mm512_store_ps(row + c, y);
    sizes = _mm512_max_epi32(sizes, _mm512_and_si512(_mm512_castps_si512(y), digits));
  }
  const float largest = with_bits(_mm512_reduce_max_epi32(sizes));
  to.scales[r] = largest / kLargest;
  const __m512 inverse = _mm512_set1_ps(kLargest / largest);
  for (Index c = 0; c < to.width; c += 16) {
    const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(row + c), inverse));
    _mm_store_si128((__m128i*)to.at(r, c), _mm512_cvtsepi32_epi8(whole));
  }
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

// Rows of Bf16 as a product takes them: as they are, or quantized to `to`.
const Rows<Bf16>& rounded(const Rows<Bf16>& from, Index, const Rows<Bf16>&) { return from; }

const Rows<Int8>& rounded(const Rows<Bf16>& from, Index rows, const Rows<Int8>& to) {
  const Span mine = my_share(up_to(rows, kTile) / kTile);
  const __m512i odd = _mm512_set1_epi32(0xffff0000), order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  for (Index tile = mine.first; tile < mine.last; tile++) {
    const Bf16* in = from.values + tile * kTile * from.width;
    Int8* out = to.values + tile * kTile * to.width;
    __m512i sizes[kTile];
    for (auto& each : sizes) each = _mm512_setzero_si512();
    for (Index c = 0; c < from.width; c += kStep)
      for (Index r = 0; r < kTile; r++) {
        const __m512i size = _mm512_and_si512(_mm512_load_si512(in + c * kTile + r * kStep), _mm512_set1_epi16(0x7fff));
        sizes[r] = _mm512_max_epu16(sizes[r], size);
      }
    float inverse[kTile];
    for (Index r = 0; r < kTile; r++) {
      const __m512i size = _mm512_max_epu32(_mm512_slli_epi32(sizes[r], 16), _mm512_and_si512(sizes[r], odd));
      const int32_t largest = std::max(_mm512_reduce_max_epi32(size), kSmallest);
      to.scales[tile * kTile + r] = with_bits(largest) / kLargest;
      inverse[r] = kLargest / with_bits(largest);
    }
    for (Index c = 0; c < from.width; c += 2 * kStep)
      for (Index r = 0; r < kTile; r++) {
        auto whole = [&](Index c) {  // 32 columns in 16 bits
          const __m512i pairs = _mm512_load_si512(in + c * kTile + r * kStep);
          auto scaled = [&](__m512i x) {
            return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_castsi512_ps(x), _mm512_set1_ps(inverse[r])));
          };
          const __m512i low = scaled(_mm512_slli_epi32(pairs, 16)), high = scaled(_mm512_and_si512(pairs, odd));
          return _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_slli_epi32(high, 16));
        };
        const __m512i bytes = _mm512_packs_epi16(whole(c), whole(c + kStep));
        _mm512_store_si512(out + c * kTile + r * 2 * kStep, _mm512_permutexvar_epi64(order, bytes));
      }
  }
#pragma omp barrier
  return to;
}

// A block of the product, of floats or whole numbers, and where its rows go, until it is used.
template <class To>
struct Block {
  alignas(64) float sums[kBlock * kBlock];
  Index row = 0, rows = 0, column = 0;
  To* places[kBlock];
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

// The sums of a block. `meanwhile(step)` is done while the tiles are at each step.
template <class Number, class Meanwhile>
inline void multiply_block(const Number* upper, const Number* lower, const Number* weight, Index steps,
                           Meanwhile meanwhile) {
  constexpr Index kSize = kTile * Rows<Number>::kStep;  // of a tile
  clear_sums();
  for (Index step = 0; step < steps; step++) {
    multiply(upper + step * kSize, lower ? lower + step * kSize : nullptr, weight + step * 2 * kSize);
    meanwhile(step);
  }
}

// Rows through some blocks of a linear layer's columns; `use(to, column, low, high)` gets 32 columns of a row, and where
// they go by `place(row, column)`.
template <class Number, class Place, class Use>
void linear(const Rows<Number>& tiled, Index rows, const Linear<Number>& layer, Span columns, Place place, Use use) {
  using To = std::remove_pointer_t<decltype(place(0, 0))>;
  constexpr Index kLine = 64 / sizeof(Number);
  const Index in = tiled.width, steps = in / Rows<Number>::kStep, all_steps = steps * up_to(rows, kBlock) / kBlock;
  const Index ahead = up_to(steps * kBlock, all_steps) / all_steps;  // lines of the next weights to fetch in each step
  const Index some = up_to(kBlock, steps) / steps;                   // rows to use in each step
  Block<To> blocks[2];
  Block<To>*made = &blocks[0], *used = &blocks[1];
  settle();
  for (Index block = columns.first; block < columns.last; block++) {
    const Number* weight = layer.weight + block * kBlock * in;
    const Number* next = weight + kBlock * in;  // behind the last there is none: fetching ahead never fails
    for (Index row = 0; row < rows; row += kBlock) {
      made->row = row, made->rows = std::min(kBlock, rows - row), made->column = block * kBlock;
      for (Index r = 0; r < made->rows; r++) made->places[r] = place(row + r, block * kBlock);
      const Number* upper = tiled.values + row * in;
      const Number* lower = rows - row > kTile ? upper + kTile * in : nullptr;
      const Index used_row = used->row, used_rows = used->rows, column = used->column;
      const float* sums = used->sums;
      To* const* const used_places = used->places;
      multiply_block(upper, lower, weight, steps, [=, &next](Index step) {
        for (Index line = 0; line < ahead; line++, next += kLine) _mm_prefetch((const char*)next, _MM_HINT_T1);
        for (Index r = step * some; r < std::min((step + 1) * some, used_rows); r++)
          use(used_places[r], column, outputs(tiled, layer, used_row + r, column, sums + r * kBlock),
              outputs(tiled, layer, used_row + r, column + 16, sums + r * kBlock + 16));
      });
      store_sums(made->sums, kBlock);
      std::swap(made, used);
    }
  }
  for (Index r = 0; r < used->rows; r++)
    use(used->places[r], used->column, outputs(tiled, layer, used->row + r, used->column, used->sums + r * kBlock),
        outputs(tiled, layer, used->row + r, used->column + 16, used->sums + r * kBlock + 16));
}

// What one thread needs: room for a row; for attention a head's queries (times log2 e), keys and values of all images,
// [tokens up to a step][64], zeros behind the last token; in tiles, transposed keys and values by pairs; what 32 queries
// take of each value, rounded and exact.
struct Own {
  float* row;
  Bf16 *heads, *keys, *values, *shares;
  float* scores;
};

struct Head {
  const Bf16 *queries, *keys, *values;
  const Bf16* bias;
};

// A row's powers of 2 of the scores and the position bias, rounded; returns their sum.
inline float make_shares(const float* scores, const Bf16* bias, Index width, float subtracted, Bf16* shares) {
  const __m512 log2_e = _mm512_set1_ps(kLog2E), most = _mm512_set1_ps(subtracted);
  __m512 sum = _mm512_setzero_ps();
  for (Index t = 0; t < width; t += 16) {
    const __m512 score = _mm512_fmadd_ps(widen(bias + t), log2_e, _mm512_load_ps(scores + t));
    const __m512 share = power_of_2(_mm512_sub_ps(score, most));
    sum = _mm512_add_ps(sum, share);
    _mm256_store_si256((__m256i*)(shares + t), (__m256i)_mm512_cvtneps_pbh(share));
  }
  return _mm512_reduce_add_ps(sum);
}

inline float highest(const float* scores, const Bf16* bias, Index width) {
  const __m512 log2_e = _mm512_set1_ps(kLog2E);
  __m512 most = _mm512_set1_ps(-INFINITY);
  for (Index t = 0; t < width; t += 16)
    most = _mm512_max_ps(most, _mm512_fmadd_ps(widen(bias + t), log2_e, _mm512_load_ps(scores + t)));
  return _mm512_reduce_max_ps(most);
}

// Attention of one head of one image, in rows from `row`, in the columns from `column`.
void attend(const Head& head, Index tokens, const Own& own, const Rows<Bf16>& to, Index row, Index column) {
  const Index across = up_to(tokens, kTile), down = up_to(tokens, kStep);
  for (Index t = 0; t < across; t += kTile)
    for (Index half = 0; half < 2; half++)
      transpose_pairs(head.keys + t * kHead + half * kStep, kHead, own.keys + t * kHead + half * kTileSize);
  alignas(64) static const uint16_t kPairs[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                  8,  40, 9,  41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i first = _mm512_load_si512(kPairs), second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
  for (Index t = 0; t < down; t += 2)
    for (Index half = 0; half < 2; half++) {
      const Bf16* in = head.values + t * kHead + half * kStep;
      const __m512i even = _mm512_loadu_si512(in), odd = _mm512_loadu_si512(in + kHead);
      Bf16* out = own.values + t / kStep * 4 * kTileSize + half * 2 * kTileSize + t % kStep / 2 * kStep;
      _mm512_store_si512(out, _mm512_permutex2var_epi16(even, first, odd));
      _mm512_store_si512(out + kTileSize, _mm512_permutex2var_epi16(even, second, odd));
    }
  alignas(64) float sums[kBlock * kHead], scale[kBlock];
  for (Index query = 0; query < tokens; query += kBlock) {
    const Bf16* q = head.queries + query * kHead;
    settle();
    _tile_loadd(4, q, kHead * 2);
    _tile_loadd(5, q + kStep, kHead * 2);
    _tile_loadd(6, q + kTile * kHead, kHead * 2);
    _tile_loadd(7, q + kTile * kHead + kStep, kHead * 2);
    for (Index t = 0; t < across; t += kTile) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_stream_loadd(2, own.keys + t * kHead, 64);
      _tile_dpbf16ps(0, 4, 2);
      _tile_dpbf16ps(1, 6, 2);
      _tile_stream_loadd(3, own.keys + t * kHead + kTileSize, 64);
      _tile_dpbf16ps(0, 5, 3);
      _tile_dpbf16ps(1, 7, 3);
      _tile_stored(0, own.scores + t, across * 4);
      _tile_stored(1, own.scores + kTile * across + t, across * 4);
    }
    const Index rows = std::min(kBlock, tokens - query);
    for (Index r = 0; r < rows; r++) {
      const float* scores = own.scores + r * across;
      const Bf16* bias = head.bias + (query + r) * across;
      Bf16* shares = own.shares + r * down;
      float sum = make_shares(scores, bias, across, 0, shares);
      if (!(sum > kLeastSum && sum < kMostSum))  // also of NaN
        sum = make_shares(scores, bias, across, highest(scores, bias, across), shares);
      scale[r] = 1 / sum;
    }
    settle();
    for (Index half = 0; half < 2; half++) {
      clear_sums();
      for (Index t = 0; t < down; t += kStep) {
        const Bf16* values = own.values + t / kStep * 4 * kTileSize + half * 2 * kTileSize;
        _tile_loadd(4, own.shares + t, down * 2);
        _tile_stream_loadd(6, values, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_stream_loadd(7, values + kTileSize, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, own.shares + kTile * down + t, down * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      store_sums(sums + half * kStep, kHead);
    }
    for (Index r = 0; r < rows; r++) {
      const __m512 factor = _mm512_set1_ps(scale[r]);
      auto scaled = [&](Index c) { return _mm512_mul_ps(_mm512_load_ps(sums + r * kHead + c), factor); };
      for (Index c = 0; c < kHead; c += kStep)
        _mm512_store_si512(to.at(row + query + r, column + c), narrow(scaled(c), scaled(c + 16)));
    }
  }
}

// ---- A layer ----

// Rows of as many images as go through a layer together; of the inner layer kRows. `taken` and `inner` go into products,
// `attended` and `activated` are rounded to them.
template <class Number>
struct Workspace {
  Index images;
  Rows<Number> taken, inner;
  Rows<Bf16> attended, activated;
  Index* places;  // of each row in a thread's heads
};

template <class Number>
void attention_part(const Layer<Number>& layer, const Shape& shape, const Stream& x, Index images,
                    const Workspace<Number>& work, const Own& own) {
  const Index rows = images * shape.tokens;
  const Index size = up_to(shape.tokens, kStep) * kHead, next = work.images * size;  // of a head: an image's, all
  normalise(x, rows, layer.before_weight, layer.before_bias, shape.eps, work.taken, own.row);
  const Span mine = my_share(shape.heads);
  for (Index head = mine.first; head < mine.last; head++) {
    const Span columns{head * 3 * kHead / kBlock, (head + 1) * 3 * kHead / kBlock};
    auto place = [&](Index r, Index column) {
      return own.heads + column / kHead % 3 * next + work.places[r] + column % kHead;
    };
    linear(work.taken, rows, layer.qkv, columns, place, [](Bf16* to, Index column, __m512 low, __m512 high) {
      const __m512 factor = _mm512_set1_ps(column / kHead % 3 ? 1.f : kLog2E);
      _mm512_store_si512(to, narrow(_mm512_mul_ps(low, factor), _mm512_mul_ps(high, factor)));
    });
    for (Index image = 0; image < images; image++) {
      const Bf16* queries = own.heads + image * size;
      const Head given{queries, queries + next, queries + 2 * next, layer.bias + head * shape.bias_stride};
      attend(given, shape.tokens, own, work.attended, image * shape.tokens, head * kHead);
    }
  }
#pragma omp barrier
}

template <class Number>
void feed_forward_part(const Layer<Number>& layer, const Shape& shape, const Stream& x, Index rows,
                       const Workspace<Number>& work, const Own& own) {
  const Span outer = my_share(shape.hidden / kBlock), inner = my_share(shape.part / kBlock);
  for (Index first = 0; first < rows; first += kRows) {
    const Index count = std::min(kRows, rows - first);
    const Stream stream = x.from(first);
    auto place = [&](Index r, Index column) { return stream.at(r, column); };
    auto add = [](float* to, Index, __m512 low, __m512 high) {
      _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), low));
      _mm512_store_ps(to + 16, _mm512_add_ps(_mm512_load_ps(to + 16), high));
    };
    linear(rounded(work.attended.from(first), count, work.taken), count, layer.out, outer, place, add);
#pragma omp barrier
    normalise(stream, count, layer.after_weight, layer.after_bias, shape.eps, work.taken, own.row);
    for (Index part = 0; part < shape.inner; part += shape.part) {
      const Index at = part * shape.hidden;
      const Linear<Number> up{layer.up.weight + at, layer.up.scales + part, layer.up.bias + part};
      auto place_inside = [&](Index r, Index column) { return work.activated.at(r, column); };
      linear(work.taken, count, up, inner, place_inside, [](Bf16* to, Index, __m512 low, __m512 high) {
        _mm512_store_si512(to, narrow(gelu(low), gelu(high)));
      });
#pragma omp barrier
      const float* bias = part ? nullptr : layer.down.bias;
      const Linear<Number> down{layer.down.weight + at, layer.down.scales, bias};
      linear(rounded(work.activated, count, work.inner), count, down, outer, place, add);
#pragma omp barrier
    }
  }
}

// Arrays one after the other, each from a whole line of the caches on.
struct Memory {
  char* start = nullptr;
  Index used = 0;

  template <class T>
  T* take(Index count) {
    const Index at = std::exchange(used, used + up_to(count * sizeof(T), 64));
    return (T*)(start + at);
  }
  template <class Number>
  Rows<Number> take_rows(Index count, Index width) {
    Number* values = take<Number>(count * width);
    return {values, take<float>(count), width};
  }
};

// Memory of zeros that a thread keeps for its next batch: the system takes as long as a layer to clear it anew. What lies
// behind the last token is read, too, and nothing of a batch of the same shape is written there.
class Kept {
 public:
  ~Kept() { free(); }

  // None where memory ran out.
  char* of(const Shape& shape, Index together, Index bytes) {
    if (bytes_ == bytes && together_ == together && !memcmp(&shape_, &shape, sizeof shape)) return memory_;
    free();
    void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    madvise(memory, bytes, MADV_HUGEPAGE);
    bytes_ = bytes, together_ = together, shape_ = shape;
    return memory_ = (char*)memory;
  }

 private:
  void free() {
    if (bytes_) munmap(memory_, bytes_);
    bytes_ = 0;
  }

  char* memory_;
  Index bytes_ = 0, together_;
  Shape shape_;
};

// Takes x through the layers, to y; false where memory ran out.
template <class Number>
bool run(const Layer<Number>* layers, Index count, const Shape& shape, const float* x, float* y, Index images,
         int threads) {
  const Index across = up_to(shape.tokens, kTile), down = up_to(shape.tokens, kStep);
  const Index together = std::min(images, std::max<Index>(1, kRows / shape.tokens));
  const Index rows = up_to(together * shape.tokens, kBlock);
  auto work_in = [&](Memory& memory) {
    return Workspace<Number>{together,
                             memory.take_rows<Number>(rows, shape.hidden),
                             memory.take_rows<Number>(std::is_same_v<Number, Int8> ? kRows : 0, shape.part),
                             memory.take_rows<Bf16>(rows, shape.hidden),
                             memory.take_rows<Bf16>(kRows, shape.part),
                             memory.take<Index>(rows)};
  };
  auto own_in = [&](Memory& memory) {
    return Own{memory.take<float>(std::max(shape.hidden, shape.part)),
               memory.take<Bf16>(3 * together * down * kHead),
               memory.take<Bf16>(across * kHead),
               memory.take<Bf16>(down * kHead),
               memory.take<Bf16>(kBlock * down),
               memory.take<float>(kBlock * across)};
  };
  const Index groups = up_to(images, together) / together;
  auto stream_in = [&](Memory& memory) { return Stream{memory.take<float>(groups * rows * shape.hidden), shape.hidden}; };
  Memory shared, each;
  work_in(shared), stream_in(shared), own_in(each);
  const Index bytes = shared.used + threads * each.used;
  thread_local Kept kept;
  char* const memory = kept.of(shape, together, bytes);
  if (!memory) return false;
  shared = {memory};
  const Workspace<Number> work = work_in(shared);
  const Stream stream = stream_in(shared);
  // Calls `work(in x and y, in the stream)` for all 32 columns of all rows.
  auto for_stream = [&](auto work) {
    const Span mine = my_share(images * shape.tokens);
    for (Index row = mine.first; row < mine.last; row++) {
      const Index group = row / shape.tokens / together, place = row - group * together * shape.tokens + group * rows;
      for (Index c = 0; c < shape.hidden; c += kBlock) work(row * shape.hidden + c, stream.at(place, c));
    }
#pragma omp barrier
  };
  for (Index row = 0; row < together * shape.tokens; row++)
    work.places[row] = (row / shape.tokens * down + row % shape.tokens) * kHead;
  syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */);
#pragma omp parallel num_threads(threads)
  {
    Memory mine{memory + shared.used + omp_get_thread_num() * each.used};
    const Own own = own_in(mine);
    for_stream([=](Index at, float* to) { std::copy_n(x + at, kBlock, to); });
    begin_tiles();
    for (Index layer = 0; layer < count; layer++)
      for (Index group = 0; group < groups; group++) {
        const Index some = std::min(together, images - group * together);
        attention_part(layers[layer], shape, stream.from(group * rows), some, work, own);
        feed_forward_part(layers[layer], shape, stream.from(group * rows), some * shape.tokens, work, own);
      }
    for_stream([=](Index at, const float* from) { std::copy_n(from, kBlock, y + at); });
    _tile_release();
  }
  return true;
}

}  // namespace

extern "C" {

// Packs a linear map's rows of inputs, in words of two Bf16 or four Int8, as weights.
void beit_pack(const uint32_t* rows, Index outputs, Index inputs, Index parts, uint32_t* weight, int threads) {
  const Index steps = inputs / parts / kTile, blocks = outputs / kTile;
#pragma omp parallel for num_threads(threads)
  for (Index block = 0; block < parts * blocks; block++)
    for (Index step = 0; step < steps; step++) {
      const uint32_t* from = rows + block % blocks * kTile * inputs + (block / blocks * steps + step) * kTile;
      uint32_t* to = weight + (block / 2 * steps + step) * 2 * kTile * kTile + block % 2 * kTile * kTile;
      transpose_pairs((const Bf16*)from, 2 * inputs, (Bf16*)to);
    }
}

// Take x, (images, tokens, hidden) in float32, through the layers, to y; false where memory ran out.
bool beit_layers_bf16(const Layer<Bf16>* layers, Index count, const Shape* shape, const float* x, float* y,
                      Index images, int threads) {
  return run(layers, count, *shape, x, y, images, threads);
}

bool beit_layers_int8(const Layer<Int8>* layers, Index count, const Shape* shape, const float* x, float* y,
                      Index images, int threads) {
  return run(layers, count, *shape, x, y, images, threads);
}
}
