// GELU of sums of numbers that were rounded to bf16, beside which it need not be exact.
#pragma once

#include "vector.h"

namespace sluice {
namespace {

struct RoundedGelu {};

// x · Φ(x) to 2.4e-6 of x, as gelu() in two thirds of its steps: the polynomial is of degree 11, ends at 4.6 and is zero there.
template <std::size_t Count>
inline void apply(RoundedGelu, Vector (&x)[Count]) {
    constexpr float kEnd = 4.6f;
    constexpr float kTail[] = {9.334733615e-07f, -3.633144445e-07f, -2.636330920e-05f, 4.468166391e-05f,
                               2.549977523e-04f, -9.618122369e-04f, 2.119422517e-04f,  6.289584693e-03f,
                               -2.027899841e-02f, 3.254512805e-02f, -2.832177963e-02f, 1.072624101e-02f};
    __m512 u[Count], tail[Count];
    // The second operand is the result where one is a NaN.
    const auto magnitude = [](Vector y) { return _mm512_min_ps(_mm512_set1_ps(kEnd), _mm512_abs_ps((__m512)y)); };
#pragma GCC unroll 8
    for (std::size_t i = 0; i < Count; ++i) {
        u[i] = _mm512_sub_ps(magnitude(x[i]), _mm512_set1_ps(kEnd / 2));
        tail[i] = _mm512_fmadd_ps(u[i], _mm512_set1_ps(kTail[0]), _mm512_set1_ps(kTail[1]));
    }
#pragma GCC unroll 16
    for (std::size_t k = 2; k < sizeof kTail / sizeof *kTail; ++k) {
#pragma GCC unroll 8
        for (std::size_t i = 0; i < Count; ++i) tail[i] = _mm512_fmadd_ps(tail[i], u[i], _mm512_set1_ps(kTail[k]));
    }
#pragma GCC unroll 8
    for (std::size_t i = 0; i < Count; ++i)
        x[i] = (Vector)_mm512_fnmadd_ps(magnitude(x[i]), tail[i], _mm512_max_ps(_mm512_setzero_ps(), (__m512)x[i]));
}

}  // namespace
}  // namespace sluice
