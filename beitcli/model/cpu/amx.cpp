// The layers of a BEiT in bf16 on a CPU with AMX, Intel's matrix instructions: amx.py compiles and calls this.
//
// Few enough rows go through a layer together that their activations stay in a core's second-level cache, and the
// weights of the next columns are fetched meanwhile. Products are blocks of 32 x 32 in four of the eight tiles, and
// what is done to a block (bias, GELU, residual, rounding) is done while the tiles are at the next one. The residual
// stream stays in float32; only what goes into a product is rounded.
//
// Layouts are of tiles, 16 rows of 64 bytes, which one instruction loads. Tiled rows: [rows/16][columns/32][16][32].
// Weights: [out/32][in/32][2][16 pairs of inputs][16 outputs][2], those of `down` so for each part of its inputs.

#include <immintrin.h>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

namespace {

using Bf16 = uint16_t;
using Index = int64_t;

constexpr Index kTile = 16;   // rows of a tile
constexpr Index kStep = 32;   // columns of a tile of Bf16
constexpr Index kTileSize = kTile * kStep;
constexpr Index kBlock = 32;  // rows and columns of a product that are made at once
constexpr Index kHead = 64;   // width of an attention head
constexpr Index kRows = 416;  // that go through a layer together: fewer need the weights more often, more no longer fit
constexpr float kLog2E = 1.44269504f;

struct Linear {
  const Bf16* weight;
  const float* bias;  // or none
  Index in, out;
};

struct Layer {
  const float *before_weight, *before_bias, *after_weight, *after_bias;  // of the layer norms
  Linear qkv, out, up, down;  // of `qkv` come 64 queries, 64 keys and 64 values for each head
  const Bf16* bias;           // of positions: [heads or 1][tokens][tokens up to a tile], -1e30 behind the last token
  Index bias_stride;          // from one head's to the next's
};

struct Shape {
  Index tokens, hidden, heads, part;  // `part`: columns of the inner layer that are made, and used up, at a time
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

// 2^x, to 3e-6 of it: the Taylor series over -0.5...0.5. NaN stays NaN, for the caller to find in the output.
inline __m512 power_of_2(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-126.f), x);
  const __m512 whole = _mm512_roundscale_ps(x, 0);
  const __m512 rest = _mm512_sub_ps(x, whole);
  __m512 y = _mm512_set1_ps(1.33335581e-3f);
  for (float factor : {9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.f})
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(factor));
  return _mm512_scalef_ps(y, whole);
}

// x Phi(x), by erfc(z) = t(a1 + t(a2 + ...)) exp(-z^2), t = 1 / (1 + p z) (Abramowitz and Stegun, 7.1.26), to 1e-4 of
// that: the processor's quick reciprocal has 14 bits, and Bf16 keeps 8 of the result.
inline __m512 gelu(__m512 x) {
  const __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
  const __m512 t = _mm512_rcp14_ps(_mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), _mm512_set1_ps(1.f)));
  __m512 y = _mm512_set1_ps(1.061405429f);
  for (float factor : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f})
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(factor));
  const __m512 power = power_of_2(_mm512_mul_ps(_mm512_mul_ps(z, z), _mm512_set1_ps(-kLog2E)));
  const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(y, t), power);
  const __m512 half = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.5f));
  return _mm512_fnmadd_ps(half, tail, _mm512_max_ps(_mm512_setzero_ps(), x));  // x Phi(x) = max(x, 0) - |x| erfc(z) / 2
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

// Layer norm of float32 rows, as tiled rows.
void normalise(const float* x, Index rows, Index width, const float* weight, const float* bias, float eps,
               Bf16* tiled) {
  const Span mine = my_share(rows);
  for (Index row = mine.first; row < mine.last; row++) {
    const float* in = x + row * width;
    __m512 sum = _mm512_setzero_ps(), squares = sum;
    for (Index c = 0; c < width; c += 16) sum = _mm512_add_ps(sum, _mm512_loadu_ps(in + c));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
    for (Index c = 0; c < width; c += 16) {
      const __m512 off = _mm512_sub_ps(_mm512_loadu_ps(in + c), mean);
      squares = _mm512_fmadd_ps(off, off, squares);
    }
    const __m512 scale = _mm512_set1_ps(1 / std::sqrt(_mm512_reduce_add_ps(squares) / width + eps));
    auto normal = [&](Index c) {
      const __m512 y = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(in + c), mean), scale);
      return _mm512_fmadd_ps(y, _mm512_loadu_ps(weight + c), _mm512_loadu_ps(bias + c));
    };
    Bf16* out = tiled + row / kTile * kTile * width + row % kTile * kStep;
    for (Index c = 0; c < width; c += kStep) _mm512_store_si512(out + c * kTile, narrow(normal(c), normal(c + 16)));
  }
#pragma omp barrier
}

// A block of the product and where it belongs, until it is used.
struct Block {
  alignas(64) float sums[kBlock * kBlock];
  Index row = 0, rows = 0, column = 0;
};

// One step of a block: 32 or 16 rows in tiles 4 and 5, 32 columns in 6 and 7, sums in 0 to 3.
inline void multiply(const Bf16* upper, const Bf16* lower, const Bf16* weight) {
  _tile_loadd(4, upper, 64);
  _tile_loadd(6, weight, 64);
  _tile_dpbf16ps(0, 4, 6);
  _tile_loadd(7, weight + kTileSize, 64);
  _tile_dpbf16ps(1, 4, 7);
  if (lower == nullptr) return;
  _tile_loadd(5, lower, 64);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
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

// Tiled rows through some blocks of a linear layer's columns; `use(row, column, low, high)` gets 32 columns of a row.
template <class Use>
void linear(const Bf16* tiled, Index rows, const Linear& layer, Span columns, Use use) {
  const Index steps = layer.in / kStep, all_steps = steps * up_to(rows, kBlock) / kBlock;
  const Index ahead = up_to(steps * kBlock, all_steps) / all_steps;  // lines of the next weights to fetch in each step
  Block blocks[2];
  Block *made = &blocks[0], *used = &blocks[1];
  auto use_rows = [&](Index first, Index last) {
    for (Index r = first; r < last; r++) {
      __m512 low = _mm512_load_ps(used->sums + r * kBlock), high = _mm512_load_ps(used->sums + r * kBlock + 16);
      if (layer.bias) {
        low = _mm512_add_ps(low, _mm512_loadu_ps(layer.bias + used->column));
        high = _mm512_add_ps(high, _mm512_loadu_ps(layer.bias + used->column + 16));
      }
      use(used->row + r, used->column, low, high);
    }
  };
  settle();
  for (Index block = columns.first; block < columns.last; block++) {
    const Bf16* weight = layer.weight + block * kBlock * layer.in;
    const Bf16* next = weight + kBlock * layer.in;  // behind the last there is none: fetching ahead never fails
    for (Index row = 0; row < rows; row += kBlock) {
      const Bf16* upper = tiled + row * layer.in;
      const Bf16* lower = rows - row > kTile ? upper + kTile * layer.in : nullptr;
      clear_sums();
      Index done = 0, due = 0;
      for (Index step = 0; step < steps; step++) {
        const Index at = step * kTileSize;
        multiply(upper + at, lower ? lower + at : nullptr, weight + 2 * at);
        for (Index line = 0; line < ahead; line++, next += kStep) _mm_prefetch((const char*)next, _MM_HINT_T1);
        for (due += used->rows; due >= steps; due -= steps, done++) use_rows(done, done + 1);
      }
      use_rows(done, used->rows);
      store_sums(made->sums, kBlock);
      made->row = row, made->rows = std::min(kBlock, rows - row), made->column = block * kBlock;
      std::swap(made, used);
    }
  }
  use_rows(0, used->rows);
}

// What one thread needs for attention: a head's queries, keys and values of all images, [tokens up to a step][64],
// zeros behind the last token; in tiles, transposed keys and values by pairs; what 32 queries take of each value,
// rounded and exact.
struct Attention {
  Bf16 *heads, *keys, *values, *shares;
  float* scores;
};

struct Head {
  const Bf16 *queries, *keys, *values;
  const Bf16* bias;
};

// Attention of one head of one image, in tiled rows of `width` from `row`, in the columns from `column`.
void attend(const Head& head, Index tokens, const Attention& own, Bf16* tiled, Index width, Index row, Index column) {
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
      _tile_loadd(2, own.keys + t * kHead, 64);
      _tile_dpbf16ps(0, 4, 2);
      _tile_dpbf16ps(1, 6, 2);
      _tile_loadd(3, own.keys + t * kHead + kTileSize, 64);
      _tile_dpbf16ps(0, 5, 3);
      _tile_dpbf16ps(1, 7, 3);
      _tile_stored(0, own.scores + t, across * 4);
      _tile_stored(1, own.scores + kTile * across + t, across * 4);
    }
    const Index rows = std::min(kBlock, tokens - query);
    for (Index r = 0; r < rows; r++) {
      float* scores = own.scores + r * across;
      const Bf16* bias = head.bias + (query + r) * across;
      __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
      for (Index t = 0; t < across; t += 16) {
        const __m512 score = _mm512_add_ps(_mm512_load_ps(scores + t), widen(bias + t));
        _mm512_store_ps(scores + t, score);
        most = _mm512_max_ps(most, score);
      }
      const __m512 log2_e = _mm512_set1_ps(kLog2E);
      most = _mm512_set1_ps(_mm512_reduce_max_ps(most) * kLog2E);
      for (Index t = 0; t < across; t += 16) {
        const __m512 share = power_of_2(_mm512_fmsub_ps(_mm512_load_ps(scores + t), log2_e, most));
        sum = _mm512_add_ps(sum, share);
        _mm256_store_si256((__m256i*)(own.shares + r * down + t), (__m256i)_mm512_cvtneps_pbh(share));
      }
      scale[r] = 1 / _mm512_reduce_add_ps(sum);
    }
    settle();
    for (Index half = 0; half < 2; half++) {
      clear_sums();
      for (Index t = 0; t < down; t += kStep) {
        const Bf16* values = own.values + t / kStep * 4 * kTileSize + half * 2 * kTileSize;
        _tile_loadd(4, own.shares + t, down * 2);
        _tile_loadd(6, values, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, values + kTileSize, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, own.shares + kTile * down + t, down * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      store_sums(sums + half * kStep, kHead);
    }
    for (Index r = 0; r < rows; r++) {
      const Index to = row + query + r;
      Bf16* out = tiled + to / kTile * kTile * width + to % kTile * kStep + column * kTile;
      const __m512 factor = _mm512_set1_ps(scale[r]);
      auto scaled = [&](Index c) { return _mm512_mul_ps(_mm512_load_ps(sums + r * kHead + c), factor); };
      _mm512_store_si512(out, narrow(scaled(0), scaled(16)));
      _mm512_store_si512(out + kTileSize, narrow(scaled(32), scaled(48)));
    }
  }
}

// ---- A layer ----

// Tiled rows of as many images as go through a layer together; `inner` of kRows.
struct Workspace {
  Index images;
  Bf16 *normal, *inner, *attended;
};

void attention_part(const Layer& layer, const Shape& shape, const float* x, Index images, const Workspace& work,
                    const Attention& own) {
  const Index rows = images * shape.tokens;
  const Index size = up_to(shape.tokens, kStep) * kHead, next = work.images * size;  // of a head: an image's, all
  normalise(x, rows, shape.hidden, layer.before_weight, layer.before_bias, shape.eps, work.normal);
  const Span mine = my_share(shape.heads);
  for (Index head = mine.first; head < mine.last; head++) {
    const Span columns{head * 3 * kHead / kBlock, (head + 1) * 3 * kHead / kBlock};
    linear(work.normal, rows, layer.qkv, columns, [&](Index r, Index column, __m512 low, __m512 high) {
      Bf16* to = own.heads + column / kHead % 3 * next + r / shape.tokens * size + r % shape.tokens * kHead;
      _mm512_store_si512(to + column % kHead, narrow(low, high));
    });
    for (Index image = 0; image < images; image++) {
      const Bf16* queries = own.heads + image * size;
      const Head given{queries, queries + next, queries + 2 * next, layer.bias + head * layer.bias_stride};
      attend(given, shape.tokens, own, work.attended, shape.hidden, image * shape.tokens, head * kHead);
    }
  }
#pragma omp barrier
}

void feed_forward_part(const Layer& layer, const Shape& shape, float* x, Index rows, const Workspace& work) {
  const Span outer = my_share(shape.hidden / kBlock), inner = my_share(shape.part / kBlock);
  for (Index first = 0; first < rows; first += kRows) {
    const Index count = std::min(kRows, rows - first);
    float* stream = x + first * shape.hidden;
    auto add = [&](Index r, Index column, __m512 low, __m512 high) {
      float* to = stream + r * shape.hidden + column;
      _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), low));
      _mm512_storeu_ps(to + 16, _mm512_add_ps(_mm512_loadu_ps(to + 16), high));
    };
    linear(work.attended + first * shape.hidden, count, layer.out, outer, add);
#pragma omp barrier
    normalise(stream, count, shape.hidden, layer.after_weight, layer.after_bias, shape.eps, work.normal);
    for (Index part = 0; part < layer.up.out; part += shape.part) {
      const Linear up{layer.up.weight + part * shape.hidden, layer.up.bias + part, shape.hidden, shape.part};
      linear(work.normal, count, up, inner, [&](Index r, Index column, __m512 low, __m512 high) {
        Bf16* to = work.inner + r / kTile * kTile * shape.part + r % kTile * kStep + column * kTile;
        _mm512_store_si512(to, narrow(gelu(low), gelu(high)));
      });
#pragma omp barrier
      const float* bias = part ? nullptr : layer.down.bias;
      const Linear down{layer.down.weight + part * shape.hidden, bias, shape.part, shape.hidden};
      linear(work.inner, count, down, outer, add);
#pragma omp barrier
    }
  }
}

}  // namespace

// Takes x, (images, tokens, hidden) in float32, through the layers, in place; 0, or 1 where memory ran out.
extern "C" int beit_layers(const Layer* layers, Index count, const Shape* given, float* x, Index images,
                           int threads) {
  const Shape shape = *given;
  const Index across = up_to(shape.tokens, kTile), down = up_to(shape.tokens, kStep);
  const Index together = std::min(images, std::max<Index>(1, kRows / shape.tokens));
  const Index rows = up_to(together * shape.tokens, kBlock), heads = 3 * together * down * kHead;
  const Index own = 2 * (heads + across * kHead + down * kHead + kBlock * down) + 4 * kBlock * across;  // of a thread
  const Index bytes = 2 * (2 * rows * shape.hidden + kRows * shape.part) + threads * own;
  std::unique_ptr<char, decltype(&free)> memory((char*)aligned_alloc(64, bytes), &free);
  if (!memory) return 1;
  memset(memory.get(), 0, bytes);  // what lies behind the last token is read too
  char* at = memory.get();
  auto take = [](char*& from, Index bytes) { return std::exchange(from, from + bytes); };
  const Workspace work{together, (Bf16*)take(at, 2 * rows * shape.hidden), (Bf16*)take(at, 2 * kRows * shape.part),
                       (Bf16*)take(at, 2 * rows * shape.hidden)};
  syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */);
#pragma omp parallel num_threads(threads)
  {
    char* mine = at + omp_get_thread_num() * own;
    const Attention attention{(Bf16*)take(mine, 2 * heads), (Bf16*)take(mine, 2 * across * kHead),
                              (Bf16*)take(mine, 2 * down * kHead), (Bf16*)take(mine, 2 * kBlock * down), (float*)mine};
    begin_tiles();
    for (Index layer = 0; layer < count; layer++)
      for (Index first = 0; first < images; first += together) {
        const Index some = std::min(together, images - first);
        float* stream = x + first * shape.tokens * shape.hidden;
        attention_part(layers[layer], shape, stream, some, work, attention);
        feed_forward_part(layers[layer], shape, stream, some * shape.tokens, work);
      }
    _tile_release();
  }
  return 0;
}
