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

// 32 powers 2^(x / 1024) rounded to bf16, in the order that packing leaves them in (key_in_step()); 0 below 2^-32. Halves of
// registers do: x is eight times the bits of a power, but that 2^f of its fraction is 1 + f − f (1 − f) (a + b f).
// Rounding aside, it is off by 5e-4 of itself and a common factor.
inline __m512i rounded_powers(__m512 low, __m512 high) {
    const __m512i x = _mm512_packs_epi32(_mm512_cvtps_epi32(low), _mm512_cvtps_epi32(high));
    // 1 − f by a subtraction: what GCC makes of a complement waits for whatever was in its register before.
    const __m512i f = _mm512_slli_epi16(x, 6), rest = _mm512_subs_epu16(_mm512_set1_epi16(-1), f);
    const __m512i bend = _mm512_add_epi16(_mm512_mulhi_epu16(f, _mm512_set1_epi16(76)), _mm512_set1_epi16(313));
    const __m512i power = _mm512_sub_epi16(x, _mm512_mulhi_epu16(_mm512_mulhi_epu16(f, rest), bend));
    const __m512i eighth = _mm512_mulhrs_epi16(power, _mm512_set1_epi16(1 << 12));
    const __mmask32 counts = _mm512_cmpgt_epi16_mask(x, _mm512_set1_epi16(-32768));
    return _mm512_maskz_add_epi16(counts, eighth, _mm512_set1_epi16(127 << 7));
}
#endif

}  // namespace
}  // namespace sluice
