// Coefficients of the polynomials that stand for powers of 2 and for GELU, the highest power first.

#pragma once

// 2^x over -0.5...0.5, with a relative error of 7.5e-5: minimax.
constexpr float kPowerOf2[] = {5.51717746e-2f, 2.42611372e-1f, 6.9326097e-1f, 9.99928027e-1f};

// The same with a relative error of 3e-9, before rounding.
constexpr float kExactPowerOf2[] = {1.53458122e-4f, 1.33999312e-3f, 9.61848896e-3f, 5.55032878e-2f,
                                    2.40226469e-1f, 6.93147206e-1f, 1.0f};

// (Phi(x) - 1/2) / x in powers of x^2 over -4...4, beyond which Phi is 0 or 1: minimax, x Phi(x) has an error of 2e-4.
constexpr float kPhi[] = {2.25887869e-8f,  -1.58885748e-6f, 4.77645046e-5f, -8.1219361e-4f,
                          8.76372137e-3f, -6.45544794e-2f, 3.97870313e-1f};

// erfc(x) exp(x^2) in powers of 1 / (1 + kErfcScale x) for x >= 0: Abramowitz and Stegun 7.1.26, an error of 1.5e-7.
constexpr float kErfcScale = 0.3275911f;
constexpr float kErfc[] = {1.061405429f, -1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f, 0.0f};
