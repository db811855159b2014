// Powers of two, for softmax.
#pragma once

#include "vector.h"

namespace sluice {
namespace {

constexpr float kLog2E = 1.44269504f;

// 2^x for x ≤ 127, to 1e-7, by a minimax polynomial of degree 5 on |x| ≤ 1/2.
inline __m512 exact_power(__m512 x) {
    const __mmask16 counts = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
    const __m512 whole = _mm512_set1_ps(12582912.0f), shifted = x + whole;  // 1.5 · 2^23
    const Vector r = (Vector)(x - (shifted - whole));
    Vector power = r * 1.3264727e-3f + 9.6715127e-3f;
    power = power * r + 5.5507337e-2f;
    power = power * r + 2.4022242e-1f;
    power = power * r + 6.9314698e-1f;
    power = power * r + 1.0f;
    const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(counts, _mm512_castps_si512((__m512)power), exponent));
}

#if defined(__AVX512BW__)
// Scores that become rounded powers are in 2^-10 of an octave, so that they fit 16 bits.
constexpr float kRoundedOctave = 1024.0f;

// 32 scores as whole numbers, in the order that packing leaves them in (key_in_step()); the least half for −∞ and for what is
// no number.
inline __m512i rounded_scores(__m512 low, __m512 high) {
    return _mm512_packs_epi32(_mm512_cvtps_epi32(low), _mm512_cvtps_epi32(high));
}

// 32 powers 2^(x / 1024) rounded to bf16, in the order that packing leaves them in (key_in_step()); 0 below 2^-32. Halves of
// registers do: x is eight times the bits of a power, but that 2^f of its fraction is 1 + f − f (1 − f) (a + b f).
// Rounding aside, it is off by 5e-4 of itself and a common factor.
inline __m512i rounded_powers(__m512 low, __m512 high) {
    const __m512i x = rounded_scores(low, high);
    // 1 − f by a subtraction: what GCC makes of a complement waits for whatever was in its register before.
    const __m512i f = _mm512_slli_epi16(x, 6), rest = _mm512_subs_epu16(_mm512_set1_epi16(-1), f);
    const __m512i bend = _mm512_add_epi16(_mm512_mulhi_epu16(f, _mm512_set1_epi16(76)), _mm512_set1_epi16(313));
    const __m512i power = _mm512_sub_epi16(x, _mm512_mulhi_epu16(_mm512_mulhi_epu16(f, rest), bend));
    const __m512i eighth = _mm512_mulhrs_epi16(power, _mm512_set1_epi16(1 << 12));
    const __mmask32 counts = _mm512_cmpgt_epi16_mask(x, _mm512_set1_epi16(-32768));
    return _mm512_maskz_add_epi16(counts, eighth, _mm512_set1_epi16(127 << 7));
}
#endif

#if defined(__AVX512VBMI__)
// 1024 · (1 + f − 2^f) for the fractions f of an octave that have the same upper 7 bits of 10, once half of what is rounded
// off was added.
struct Bends {
    alignas(64) std::uint8_t of[128];

    constexpr Bends() : of() {
        for (int i = 0; i < 128; ++i) {
            const double f = (8 * i - 0.5) / 1024;
            double power = 1, term = 1;
            for (int n = 1; n < 16; ++n) {
                term *= f * 0.693147180559945309 / n;
                power += term;
            }
            of[i] = static_cast<std::uint8_t>(1024 * (1 + f - power) + 0.5);
        }
    }
};
constexpr Bends kBends;

// As rounded_powers(), of rounded scores, off by 1.2e-3 of itself: without multiplications, which units other than those
// of the products do meanwhile.
inline __m512i looked_up_powers(__m512i x) {
    const __m512i raised = _mm512_adds_epi16(x, _mm512_set1_epi16(4));
    const __m512i bend = _mm512_maskz_permutex2var_epi8(0x5555555555555555, _mm512_load_si512(kBends.of),
                                                        _mm512_srli_epi16(raised, 3),
                                                        _mm512_load_si512(kBends.of + 64));
    const __m512i eighth = _mm512_srai_epi16(_mm512_sub_epi16(raised, bend), 3);
    const __mmask32 counts = _mm512_cmpgt_epi16_mask(x, _mm512_set1_epi16(-32768));
    return _mm512_maskz_add_epi16(counts, eighth, _mm512_set1_epi16(127 << 7));
}
#endif

}  // namespace
}  // namespace sluice
