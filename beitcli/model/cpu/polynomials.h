// Coefficients of the polynomials that stand for powers of 2 and for GELU, the highest power first.

#pragma once

// 2^x over -0.5...0.5, with a relative error of 7.5e-5: minimax.
constexpr float kPowerOf2[] = {5.51717746e-2f, 2.42611372e-1f, 6.9326097e-1f, 9.99928027e-1f};

// (Phi(x) - 1/2) / x in powers of x^2 over -4...4, beyond which Phi is 0 or 1: minimax, x Phi(x) has an error of 2e-4.
constexpr float kPhi[] = {2.25887869e-8f,  -1.58885748e-6f, 4.77645046e-5f, -8.1219361e-4f,
                          8.76372137e-3f, -6.45544794e-2f, 3.97870313e-1f};
