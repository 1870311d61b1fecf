// Attention of one head of one image, in bf16.

#pragma once

#include "amx_products.h"

namespace {

// Where a row's powers of 2 sum up to more or less, its highest score is subtracted first: finding it takes time.
constexpr float kLeastSum = 1e-20f, kMostSum = 1e20f;

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

// Keys in tiles, transposed; values by pairs.
void lay_out(const Head& head, Index tokens, const Own& own) {
  for (Index t = 0; t < up_to(tokens, kTile); t += kTile)
    for (Index half = 0; half < 2; half++)
      transpose_pairs(head.keys + t * kHead + half * kStep, kHead, own.keys + t * kHead + half * kTileSize);
  alignas(64) static const uint16_t kPairs[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                  8,  40, 9,  41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i first = _mm512_load_si512(kPairs), second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
  for (Index t = 0; t < up_to(tokens, kStep); t += 2)
    for (Index half = 0; half < 2; half++) {
      const Bf16* in = head.values + t * kHead + half * kStep;
      const __m512i even = _mm512_loadu_si512(in), odd = _mm512_loadu_si512(in + kHead);
      Bf16* out = own.values + t / kStep * 4 * kTileSize + half * 2 * kTileSize + t % kStep / 2 * kStep;
      _mm512_store_si512(out, _mm512_permutex2var_epi16(even, first, odd));
      _mm512_store_si512(out + kTileSize, _mm512_permutex2var_epi16(even, second, odd));
    }
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
void attend(const Head& head, Index tokens, const Own& own, const Rows<Bf16>& to, Index row, Index column) {
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
    auto soften = [&] {
      for (due += kBlock; due > 0 && done < rows; due -= steps, done++) {
        const Bf16* bias = head.bias + (query + done) * across;
        const float* in = scores + done * across;
        float sum = make_shares(in, bias, across, 0, shares + done * down);
        if (!(sum > kLeastSum && sum < kMostSum))  // also of NaN
          sum = make_shares(in, bias, across, highest(in, bias, across), shares + done * down);
        scales[now][done] = 1 / sum;
      }
    };
    if (query + kBlock < tokens)
      multiply_keys(head.queries + (query + kBlock) * kHead, own.keys, across, own.scores + (1 - now) * kBlock * across,
                    soften);
    if (query) multiply_values(own.shares + (1 - now) * kBlock * down, own.values, down, sums, soften);
    while (done < rows) soften();
    for (Index r = 0; query && r < std::min(kBlock, tokens - query + kBlock); r++) {
      const __m512 factor = _mm512_set1_ps(scales[1 - now][r]);
      auto scaled = [&](Index c) { return _mm512_mul_ps(_mm512_load_ps(sums + r * kHead + c), factor); };
      for (Index c = 0; c < kHead; c += kStep)
        _mm512_store_si512(to.at(row + query - kBlock + r, column + c), narrow(scaled(c), scaled(c + 16)));
    }
  }
}

}  // namespace
