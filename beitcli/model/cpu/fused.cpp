// What lies between the products of a BEiT's layer in 8 bits, one pass each: fused.py compiles and calls this.
//
// Products are torch's. A pass reads their sums once and leaves what the next product takes, a row at a time in a core's
// first-level cache. Loops are plain, for the compiler to turn into vectors of any width; no row depends on another.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "polynomials.h"

namespace {

using Bf16 = uint16_t;
using Index = int64_t;

constexpr float kLargest = 127.f;
constexpr float kSmallest = 1e-30f;  // of a row's largest: a row of zeros has a scale too
constexpr float kLog2E = 1.44269504f;
// Exponents of powers of 2 are clamped to -125...125, so that all are normal floats. A sum of powers between these limits
// has none that was clamped from above, and those clamped from below do not matter in it.
constexpr float kLowest = -125.f, kLeastSum = 1e-20f, kMostSum = 1e35f;

constexpr Index kLanes = 16;  // floats in the widest vector

// Quantized rows: each value times its row's scale.
struct Rows {
  int8_t* values;
  float* scales;
  Index count, width;
};

// A product of quantized rows and the quantized weights of a linear map.
struct Sums {
  const int32_t* sums;
  const float *row_scales, *scales, *bias;
  Index rows, width;
};

struct Norm {
  const float *weight, *bias;
  float eps;
};

struct Heads {
  Index images, tokens, heads, width;
};

inline int32_t bits_of(float x) {
  int32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float with_bits(int32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// A whole number that orders as |x| does: clang makes no vectors of a largest float. NaN is above all.
inline int32_t size_of(float x) { return bits_of(x) & 0x7fffffff; }

// The same for x itself, and back; a NaN may be at either end.
inline int32_t order_of(float x) { return bits_of(x) ^ (bits_of(x) >> 31 & 0x7fffffff); }
inline float in_order(int32_t order) { return with_bits(order ^ (order >> 31 & 0x7fffffff)); }

inline float widened(float x) { return x; }
inline float widened(Bf16 x) { return with_bits(int32_t(uint32_t(x) << 16)); }

inline void store(float x, float* to) { *to = x; }

// To the nearest. A NaN of arithmetic with finite weights stays one: the bits that are cut off are 0.
inline void store(float x, Bf16* to) { *to = (uint32_t(bits_of(x)) + 0x8000) >> 16; }

// To the nearest whole number, of two the even one, up to 2^22: clang makes no vectors of `nearbyint`.
inline float rounded(float x) {
  constexpr float kWhole = 3 << 22;  // no digit behind the point is left beside it
  return (x + kWhole) - kWhole;
}

// 2^x for |x| up to 126. NaN stays NaN.
inline float power_of_2(float x) {
  constexpr float kExponent = (3 << 22) + 127;  // the last bits of a sum with it are those of a float's exponent
  const float shifted = x + kExponent, rest = x - (shifted - kExponent);
  float y = kPowerOf2[0];
  y = y * rest + kPowerOf2[1];
  y = y * rest + kPowerOf2[2];
  y = y * rest + kPowerOf2[3];
  return y * with_bits(uint32_t(bits_of(shifted)) << 23);
}

// x Phi(x).
inline float gelu(float x) {
  float t = x < -4.f ? -4.f : x;
  t = t > 4.f ? 4.f : t;
  const float square = t * t;
  float y = kPhi[0];
  y = y * square + kPhi[1];
  y = y * square + kPhi[2];
  y = y * square + kPhi[3];
  y = y * square + kPhi[4];
  y = y * square + kPhi[5];
  y = y * square + kPhi[6];
  return x * (y * t + 0.5f);
}

// Makes row `r` of the values of each column: `row` has room for them. Its scale is not finite where one of them is not.
template <class Value>
inline void quantize(const Rows& to, Index r, float* row, Value value) {
  int32_t most = size_of(kSmallest);
#pragma omp simd reduction(max : most)
  for (Index c = 0; c < to.width; c++) {
    row[c] = value(c);
    const int32_t size = size_of(row[c]);
    most = size > most ? size : most;
  }
  const float scale = with_bits(most) / kLargest, inverse = 1.f / scale;
  int8_t* out = to.values + r * to.width;
#pragma omp simd
  for (Index c = 0; c < to.width; c++) out[c] = int8_t(int32_t(rounded(row[c] * inverse)));
  to.scales[r] = scale;
}

// Calls `work(column)` in whole vectors, for some columns twice: one by one, the last few would take as long as the others.
template <class Work>
inline void for_columns(Index width, Work work) {
  const Index whole = width < kLanes ? width : width / kLanes * kLanes;
#pragma omp simd
  for (Index c = 0; c < whole; c++) work(c);
  if (whole < width) {
#pragma omp simd
    for (Index c = 0; c < kLanes; c++) work(width - kLanes + c);
  }
}

// Calls `work(number, room for a row)` for each row, on all threads.
template <class Work>
void for_rows(Index rows, Index width, int threads, Work work) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<float> row(width);
#pragma omp for
    for (Index r = 0; r < rows; r++) work(r, row.data());
  }
}

// Replaces each value of a row by its clamped power of 2, and returns the sum.
inline float make_powers(float* row, Index width) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (Index c = 0; c < width; c++) {
    const float x = row[c] < kLowest ? kLowest : row[c];
    row[c] = power_of_2(x > -kLowest ? -kLowest : x);
    sum += row[c];
  }
  return sum;
}

inline void subtract_highest(float* row, Index width) {
  int32_t highest = order_of(row[0]);
#pragma omp simd reduction(max : highest)
  for (Index c = 0; c < width; c++) highest = order_of(row[c]) > highest ? order_of(row[c]) : highest;
  const float subtracted = in_order(highest);
#pragma omp simd
  for (Index c = 0; c < width; c++) row[c] -= subtracted;
}

// Where a token's part of a head is, in (images, heads, tokens, width).
inline Index place(const Heads& shape, Index row, Index head) {
  return ((row / shape.tokens * shape.heads + head) * shape.tokens + row % shape.tokens) * shape.width;
}

template <class T>
void split_heads(const Sums& from, const Heads& shape, T* to, int threads) {
  const Index hidden = shape.heads * shape.width;
  for_rows(from.rows, 0, threads, [&](Index r, float*) {
    const float factor = from.row_scales[r];
    for (Index head = 0; head < 3 * shape.heads; head++) {
      const Index first = head * shape.width;
      const int32_t* sums = from.sums + r * from.width + first;
      const float *scales = from.scales + first, *bias = from.bias + first;
      T* out = to + head / shape.heads * from.rows * hidden + place(shape, r, head % shape.heads);
#pragma omp simd
      for (Index c = 0; c < shape.width; c++) store(float(sums[c]) * scales[c] * factor + bias[c], out + c);
    }
  });
}

template <class T>
void join_heads(const T* from, const Heads& shape, const Rows& to, int threads) {
  for_rows(to.count, to.width, threads, [&](Index r, float* row) {
    for (Index head = 0; head < shape.heads; head++) {
      const T* in = from + place(shape, r, head);
      float* part = row + head * shape.width;
#pragma omp simd
      for (Index c = 0; c < shape.width; c++) part[c] = widened(in[c]);
    }
    quantize(to, r, row, [=](Index c) { return row[c]; });
  });
}

}  // namespace

extern "C" {

// Layer norm, quantized.
void beit_normalise(const float* x, const Norm* norm, const Rows* to, int threads) {
  const Index width = to->width;
  for_rows(to->count, width, threads, [&](Index r, float* row) {
    const float* in = x + r * width;
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (Index c = 0; c < width; c++) sum += in[c];
    const float mean = sum / width;
#pragma omp simd reduction(+ : squares)
    for (Index c = 0; c < width; c++) squares += (in[c] - mean) * (in[c] - mean);
    const float factor = 1.f / std::sqrt(squares / width + norm->eps), *weight = norm->weight, *bias = norm->bias;
    quantize(*to, r, row, [=](Index c) { return (in[c] - mean) * factor * weight[c] + bias[c]; });
  });
}

// Queries, keys and values, each (images, heads, tokens, width).
void beit_split_bf16(const Sums* from, const Heads* shape, Bf16* to, int threads) {
  split_heads(*from, *shape, to, threads);
}

void beit_split_fp32(const Sums* from, const Heads* shape, float* to, int threads) {
  split_heads(*from, *shape, to, threads);
}

// Softmax of scores (images, heads, tokens, tokens) and bias (heads, tokens, tokens), if there is one, in place.
//
// A row's highest score is subtracted only where powers of 2 overflow or nearly all underflow: it takes as long to find.
void beit_softmax(Bf16* scores, const Bf16* bias, const Heads* shape, int threads) {
  const Index width = shape->tokens, rows = shape->heads * width, whole = (width + kLanes - 1) / kLanes * kLanes;
  const std::vector<Bf16> zeros(bias ? 0 : width);
  for_rows(shape->images * rows, whole, threads, [&](Index r, float* row) {
    Bf16* at = scores + r * width;
    const Bf16* added = bias ? bias + r % rows * width : zeros.data();
    const auto read = [=] {
      std::fill_n(row + whole - kLanes, kLanes, kLowest);
      for_columns(width, [=](Index c) { row[c] = (widened(at[c]) + widened(added[c])) * kLog2E; });
    };
    read();
    float sum = make_powers(row, whole);
    if (!(sum > kLeastSum && sum < kMostSum)) {  // also of NaN
      read();
      subtract_highest(row, width);
      sum = make_powers(row, whole);
    }
    const float factor = 1.f / sum;
    for_columns(width, [=](Index c) { store(row[c] * factor, at + c); });
  });
}

// The attended values (images, heads, tokens, width), quantized.
void beit_join_bf16(const Bf16* from, const Heads* shape, const Rows* to, int threads) {
  join_heads(from, *shape, *to, threads);
}

void beit_join_fp32(const float* from, const Heads* shape, const Rows* to, int threads) {
  join_heads(from, *shape, *to, threads);
}

// The sum with x; `to` may be x.
void beit_add(const Sums* from, const float* x, float* to, int threads) {
  const Index width = from->width;
  for_rows(from->rows, 0, threads, [&](Index r, float*) {
    const int32_t* sums = from->sums + r * width;
    const float *in = x + r * width, *scales = from->scales, *bias = from->bias, factor = from->row_scales[r];
    float* out = to + r * width;
#pragma omp simd
    for (Index c = 0; c < width; c++) out[c] = in[c] + (float(sums[c]) * scales[c] * factor + bias[c]);
  });
}

// GELU, quantized.
void beit_activate(const Sums* from, const Rows* to, int threads) {
  const Index width = to->width;
  for_rows(to->count, width, threads, [&](Index r, float* row) {
    const int32_t* sums = from->sums + r * width;
    const float *scales = from->scales, *bias = from->bias, factor = from->row_scales[r];
    quantize(*to, r, row, [=](Index c) { return gelu(float(sums[c]) * scales[c] * factor + bias[c]); });
  });
}

// The mean of GELU over all rows of an image but the first, (images, width).
void beit_average(const Sums* from, Index images, float* to, int threads) {
  const Index width = from->width, tokens = from->rows / images;
  for_rows(images, 0, threads, [&](Index image, float*) {
    float* mean = to + image * width;
    std::fill_n(mean, width, 0.f);
    for (Index r = image * tokens + 1; r < (image + 1) * tokens; r++) {
      const int32_t* sums = from->sums + r * width;
      const float *scales = from->scales, *bias = from->bias, factor = from->row_scales[r];
#pragma omp simd
      for (Index c = 0; c < width; c++) mean[c] += gelu(float(sums[c]) * scales[c] * factor + bias[c]) / (tokens - 1);
    }
  });
}
}
