// What the attention of one head, of one image, needs on every CPU: its memory, its layouts, and the softmax of a row.

#pragma once

#include "rows.h"

namespace {

// Where a row's powers of 2 sum up to more or less, its highest score is subtracted first: finding it takes time.
constexpr float kLeastSum = 1e-20f, kMostSum = 1e20f;

// What one thread needs: room for a row; for attention a head's queries (times log2 e), keys and values of all images,
// [tokens up to a step][64], zeros behind the last token; in tiles, transposed keys and values by pairs; what a block of
// queries takes of each value, rounded and exact.
template <class T>
struct Own {
  float* row;
  T *heads, *keys, *values, *shares;
  float* scores;
};

template <class T>
struct Head {
  const T *queries, *keys, *values;
  const T* bias;
};

inline void store_shares(Bf16* to, __m512 shares) {
  _mm256_store_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(shares));
}

inline void store_shares(float* to, __m512 shares) { _mm512_store_ps(to, shares); }

// A row's powers of 2 of the scores and the position bias, rounded; returns their sum.
template <class T>
inline float make_shares(const float* scores, const T* bias, Index width, float subtracted, T* shares) {
  const __m512 log2_e = _mm512_set1_ps(kLog2E), most = _mm512_set1_ps(subtracted);
  __m512 sum = _mm512_setzero_ps();
  for (Index t = 0; t < width; t += 16) {
    const __m512 score = _mm512_fmadd_ps(widen(bias + t), log2_e, _mm512_load_ps(scores + t));
    const __m512 share = power_of_2<T>(_mm512_sub_ps(score, most));
    sum = _mm512_add_ps(sum, share);
    store_shares(shares + t, share);
  }
  return _mm512_reduce_add_ps(sum);
}

template <class T>
inline float highest(const float* scores, const T* bias, Index width) {
  const __m512 log2_e = _mm512_set1_ps(kLog2E);
  __m512 most = _mm512_set1_ps(-INFINITY);
  for (Index t = 0; t < width; t += 16)
    most = _mm512_max_ps(most, _mm512_fmadd_ps(widen(bias + t), log2_e, _mm512_load_ps(scores + t)));
  return _mm512_reduce_max_ps(most);
}

// A row's softmax, rounded, but for the factor that is returned.
template <class T>
inline float soften(const float* scores, const T* bias, Index width, T* shares) {
  float sum = make_shares(scores, bias, width, 0, shares);
  if (!(sum > kLeastSum && sum < kMostSum))  // also of NaN
    sum = make_shares(scores, bias, width, highest(scores, bias, width), shares);
  return 1 / sum;
}

// Values by pairs, in tiles.
inline void lay_out_values(const Head<Bf16>& head, Index tokens, const Own<Bf16>& own) {
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

// Values in tiles.
inline void lay_out_values(const Head<float>& head, Index tokens, const Own<float>& own) {
  for (Index t = 0; t < tokens; t++)
    for (Index c = 0; c < kHead; c += kTile) {
      float* to = own.values + t / kTile * kTile * kHead + c * kTile + t % kTile * kTile;
      _mm512_store_ps(to, _mm512_load_ps(head.values + t * kHead + c));
    }
}

// Keys in tiles, transposed; values in tiles.
template <class T>
void lay_out(const Head<T>& head, Index tokens, const Own<T>& own) {
  constexpr Index words = kHead * sizeof(T) / 4;  // of a row
  for (Index t = 0; t < up_to(tokens, kTile); t += kTile)
    for (Index word = 0; word < words; word += kTile)
      transpose((const uint32_t*)(head.keys + t * kHead) + word, words,
                (uint32_t*)(own.keys + t * kHead) + word * kTile);
  lay_out_values(head, tokens, own);
}

}  // namespace
