// A linear map, and the outputs that come of the sums of its product with rows.
//
// Weights are [out/32][in/n][2][16][16 outputs][n/16], where n numbers of float, bf16 or int8 have 64 bytes.

#pragma once

#include "rows.h"

namespace {

template <class Number>
struct Linear {
  const Number* weight;
  const float *scales, *bias;  // of the outputs; scales are those of Int8, and there may be no bias
  const int32_t* starts;       // of sums of Int8, where bytes have no sign: -128 times the sum of the weights
};

// Outputs of a row, from the given column on, from their sums.
template <class Number>
inline __m512 outputs(const Rows<Number>&, const Linear<Number>& layer, Index, Index column, const float* sums) {
  const __m512 y = _mm512_load_ps(sums);
  return layer.bias ? _mm512_add_ps(y, _mm512_loadu_ps(layer.bias + column)) : y;
}

inline __m512 outputs(const Rows<Int8>& rows, const Linear<Int8>& layer, Index row, Index column, const float* sums) {
  const __m512 y = _mm512_cvtepi32_ps(_mm512_load_si512(sums));
  const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(rows.scales[row]), _mm512_loadu_ps(layer.scales + column));
  return layer.bias ? _mm512_fmadd_ps(y, scale, _mm512_loadu_ps(layer.bias + column)) : _mm512_mul_ps(y, scale);
}

}  // namespace
