// Vectors of floats, as wide as the instruction set's source file says with LANES, and the functions of them that the
// loops need. All is in an anonymous namespace and uses no inline function of the standard library: the linker must
// never keep an AVX-512 copy of something that portable code calls.
#pragma once

#include <cstddef>
#include <cstdint>

#include "instruction_set.h"

#if LANES == 16
#include <immintrin.h>
#endif

namespace sluice {
namespace {

constexpr std::size_t kLanes = LANES;

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef std::int32_t IntVector __attribute__((vector_size(LANES * sizeof(float))));
typedef float UnalignedVector __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

inline Vector load(const float *from) { return *reinterpret_cast<const UnalignedVector *>(from); }
inline void store(float *to, Vector value) { *reinterpret_cast<UnalignedVector *>(to) = value; }
inline Vector broadcast(float value) { return value - Vector{}; }
// The first `count` values, and zeros (`count` is less than a vector's).
inline Vector load_first(const float *from, std::size_t count) {
#if LANES == 16
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
#else
    Vector value = {};
    for (std::size_t lane = 0; lane < count; ++lane) value[lane] = from[lane];
    return value;
#endif
}
inline void store_first(float *to, Vector value, std::size_t count) {
#if LANES == 16
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), value);
#else
    for (std::size_t lane = 0; lane < count; ++lane) to[lane] = value[lane];
#endif
}

// a · b + c, with one rounding on processors that can: the compiler fuses only what it sees so, and code that does the
// same in two places is to round alike.
inline Vector fused(Vector a, Vector b, Vector c) {
#if LANES == 16
    return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
    return a * b + c;
#endif
}

// A NaN in `value` stays a NaN, as in torch's relu.
inline Vector at_least(Vector value, Vector floor) { return value < floor ? floor : value; }
inline Vector at_most(Vector value, Vector ceiling) { return value > ceiling ? ceiling : value; }
// A NaN in either is the result, as in torch's max_pool2d.
inline Vector greater(Vector a, Vector b) { return (a < b) | (b != b) ? b : a; }
inline float greater(float a, float b) { return a < b || b != b ? b : a; }

inline float sum_of(Vector value) {
#if LANES == 16
    return _mm512_reduce_add_ps(value);
#else
    float sum = 0;
    for (std::size_t lane = 0; lane < kLanes; ++lane) sum += value[lane];
    return sum;
#endif
}

// The sums of four: with AVX-512 in half of the steps that they take one by one.
inline void sums_of(const Vector (&values)[4], float (&sums)[4]) {
#if LANES == 16
    const auto pairs = [&](std::size_t i) {
        const __m512 a = (__m512)values[i], b = (__m512)values[i + 1];
        return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    };
    const __m512 ab = pairs(0), cd = pairs(2);
    const __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    const __m512 halves = _mm512_add_ps(all, _mm512_shuffle_f32x4(all, all, 0x4e));
    _mm_storeu_ps(sums, _mm_add_ps(_mm512_castps512_ps128(halves), _mm512_extractf32x4_ps(halves, 1)));
#else
    for (std::size_t i = 0; i < 4; ++i) sums[i] = sum_of(values[i]);
#endif
}

// The largest lane, where none is NaN.
inline float largest_of(Vector value) {
#if LANES == 16
    return _mm512_reduce_max_ps(value);
#else
    float largest = value[0];
    for (std::size_t lane = 1; lane < kLanes; ++lane) largest = value[lane] > largest ? value[lane] : largest;
    return largest;
#endif
}

// Where exponential() ends: the smallest normal float and half of the largest one lie beyond.
constexpr float kLeastExponent = -87.0f, kMostExponent = 88.0f;

// e^x to 2 units in the last place; 0 below -87, e^88 above 88, NaN of NaN. x = n·ln 2 + r, e^r by a minimax
// polynomial of degree 6 on |r| ≤ ln 2 / 2.
inline Vector exponential(Vector x) {
    const Vector bounded = at_most(at_least(x, broadcast(kLeastExponent)), broadcast(kMostExponent));
    // Adding 1.5 · 2^23 leaves the nearest integer in the low bits.
    const Vector shifted = bounded * 1.44269504f + 12582912.0f;
    const Vector n = shifted - 12582912.0f;
    const Vector r = bounded - n * 0.693359375f + n * 2.12194440e-4f;
    Vector power = r * 1.3836842e-3f + 8.3748158e-3f;
    power = power * r + 4.1668226e-2f;
    power = power * r + 1.6666420e-1f;
    power = power * r + 4.9999992e-1f;
    power = power * r + 1.0f;
    power = power * r + 1.0f;
    const Vector scaled = (Vector)((IntVector)power + ((IntVector)shifted << 23));
    return x < kLeastExponent ? Vector{} : scaled;
}

}  // namespace
}  // namespace sluice
