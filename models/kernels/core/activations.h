// Activations of vectors.
#pragma once

#include "vector.h"

namespace sluice {
namespace {

#if LANES == 16
// |x| · Φ(−|x|) by pieces, one to a lane: polynomials of the distance to the middle of a piece, the lowest power first. They
// meet it at the nodes of Chebyshev, and so are off by 7e-9.
struct GeluPieces {
    static constexpr std::size_t kCount = 16, kPowers = 6;
    static constexpr float kEnd = 5.5f, kWidth = 0.355f;  // the first piece begins in its middle, at 0, and the last ends behind kEnd

    alignas(64) float power[kPowers][kCount];

    constexpr GeluPieces() : power() {
        constexpr double nodes[kPowers] = {-0.965925826289068, -0.707106781186548, -0.258819045102521,
                                           0.258819045102521,  0.707106781186548,  0.965925826289068};
        for (std::size_t piece = 0; piece < kCount; ++piece) {
            // Newton's form, from differences that are divided in place.
            double at[kPowers] = {}, difference[kPowers] = {}, sum[kPowers] = {};
            for (std::size_t i = 0; i < kPowers; ++i) {
                at[i] = nodes[i] * (kWidth / 2);
                difference[i] = value(static_cast<double>(piece) * kWidth + at[i]);
            }
            for (std::size_t order = 1; order < kPowers; ++order) {
                for (std::size_t i = kPowers; i-- > order;)
                    difference[i] = (difference[i] - difference[i - 1]) / (at[i] - at[i - order]);
            }
            for (std::size_t i = kPowers; i-- > 0;) {
                for (std::size_t k = kPowers; k-- > 0;) sum[k] = (k ? sum[k - 1] : difference[i]) - at[i] * sum[k];
            }
            for (std::size_t k = 0; k < kPowers; ++k) power[k][piece] = static_cast<float>(sum[k]);
        }
        power[0][0] = 0;
    }

    // x · Φ(−x), by the series of Φ around 0.
    static constexpr double value(double x) {
        double sum = 0, term = x;
        for (int n = 0; n < 100; ++n) {
            sum += term / (2 * n + 1);
            term *= -x * x / (2 * (n + 1));
        }
        return x * (0.5 - 0.398942280401433 * sum);
    }
};
constexpr GeluPieces kGeluPieces;

// x · Φ(x), the exact form, to 3e-7: max(x, 0) − |x| · Φ(−|x|), whose second term is less than 1.1e-7 beyond the last
// piece. Permutes look the powers up on other units than multiply. Of several vectors step by step, since each step waits
// for the one before.
template <std::size_t Count>
inline void gelu(Vector (&x)[Count]) {
    constexpr float kWhole = 12582912.0f;  // adding 1.5 · 2^23 leaves the number of the piece in the low bits
    __m512 magnitude[Count], distance[Count], tail[Count];
    __m512i piece[Count];
    const auto power = [&](std::size_t k, std::size_t i) {
        return _mm512_permutexvar_ps(piece[i], _mm512_load_ps(kGeluPieces.power[k]));
    };
#pragma GCC unroll 8
    for (std::size_t i = 0; i < Count; ++i) {
        magnitude[i] = _mm512_abs_ps((__m512)x[i]);
        const __m512 shifted =
            _mm512_fmadd_ps(magnitude[i], _mm512_set1_ps(1 / GeluPieces::kWidth), _mm512_set1_ps(kWhole));
        piece[i] = _mm512_castps_si512(shifted);
        distance[i] = _mm512_fnmadd_ps(_mm512_sub_ps(shifted, _mm512_set1_ps(kWhole)),
                                       _mm512_set1_ps(GeluPieces::kWidth), magnitude[i]);
        tail[i] = power(GeluPieces::kPowers - 1, i);
    }
#pragma GCC unroll 8
    for (std::size_t k = 1; k < GeluPieces::kPowers; ++k) {
#pragma GCC unroll 8
        for (std::size_t i = 0; i < Count; ++i)
            tail[i] = _mm512_fmadd_ps(tail[i], distance[i], power(GeluPieces::kPowers - 1 - k, i));
    }
#pragma GCC unroll 8
    for (std::size_t i = 0; i < Count; ++i) {
        // The second operand is the result where one is a NaN.
        const __m512 positive = _mm512_max_ps(_mm512_setzero_ps(), (__m512)x[i]);
        const __mmask16 near = _mm512_cmp_ps_mask(magnitude[i], _mm512_set1_ps(GeluPieces::kEnd), _CMP_NGT_UQ);
        x[i] = (Vector)_mm512_mask_sub_ps(positive, near, positive, tail[i]);
    }
}
#else
// x · Φ(x), the exact form, to 4.1e-7: max(x, 0) − |x| · Φ(−|x|), whose second term is a minimax polynomial of degree 15
// up to 5.5, and less than 1.1e-7 beyond. Of several vectors step by step, since each step waits for the one before.
template <std::size_t Count>
inline void gelu(Vector (&x)[Count]) {
    constexpr float kEnd = 5.5f;
    constexpr float kTail[] = {-5.969769025e-03f, 5.912386672e-03f,  3.102342106e-02f,  -4.511055839e-02f,
                               -4.972619515e-02f, 1.348793642e-01f,  -3.483134653e-02f, -1.638947743e-01f,
                               2.185144093e-01f,  -5.119230498e-02f, -1.771978720e-01f, 2.718671388e-01f,
                               -2.068043114e-01f, 9.455880321e-02f,  -2.500816673e-02f, 2.979769260e-03f};
    Vector magnitude[Count], u[Count], tail[Count];
#pragma GCC unroll 8
    for (std::size_t i = 0; i < Count; ++i) {
        magnitude[i] = x[i] < 0 ? -x[i] : x[i];
        u[i] = magnitude[i] * (2 / kEnd) - 1.0f;
        tail[i] = u[i] * kTail[0] + kTail[1];
    }
#pragma GCC unroll 16
    for (std::size_t k = 2; k < sizeof kTail / sizeof *kTail; ++k) {
#pragma GCC unroll 8
        for (std::size_t i = 0; i < Count; ++i) tail[i] = tail[i] * u[i] + kTail[k];
    }
#pragma GCC unroll 8
    for (std::size_t i = 0; i < Count; ++i) {
        const Vector positive = at_least(x[i], Vector{});
        x[i] = magnitude[i] > kEnd ? positive : positive - magnitude[i] * tail[i];
    }
}
#endif

inline Vector gelu(Vector x) {
    Vector one[] = {x};
    gelu(one);
    return one[0];
}

// x / (1 + e^−x).
inline Vector silu(Vector x) { return x < -kMostExponent ? Vector{} : x / (exponential(-x) + 1.0f); }

struct Gelu {
    Vector operator()(Vector x) const { return gelu(x); }
};

// An activation of several vectors.
template <std::size_t Count, typename Act>
inline void apply(Act act, Vector (&x)[Count]) {
#pragma GCC unroll 8
    for (std::size_t i = 0; i < Count; ++i) x[i] = act(x[i]);
}

template <std::size_t Count>
inline void apply(Gelu, Vector (&x)[Count]) {
    gelu(x);
}

// Calls function with the activation, so that it is inlined there.
template <typename Function>
void with_activation(Activation activation, const Function &function) {
    switch (activation) {
        case Activation::none: return function([](Vector x) { return x; });
        case Activation::relu: return function([](Vector x) { return at_least(x, Vector{}); });
        case Activation::relu6: return function([](Vector x) { return at_most(at_least(x, Vector{}), broadcast(6)); });
        case Activation::gelu: return function(Gelu{});
        case Activation::silu: return function([](Vector x) { return silu(x); });
    }
}

}  // namespace
}  // namespace sluice
