// Numbers as the tile unit takes them: rounded to bf16, or as three numbers in bf16 whose sum they are, see split.h.
#pragma once

#include "split.h"

#include <immintrin.h>

namespace sluice {
namespace {

inline __m512i high_halves() { return _mm512_set1_epi32(static_cast<int>(0xffff0000)); }

// Three numbers in bf16, each in the high half of a lane, whose sum is x: what is left of a lane's low half does not
// count.
struct Parts {
    __m512i part[kParts];
};

inline Parts split(__m512 x) {
    const __m512i first = _mm512_and_si512(_mm512_castps_si512(x), high_halves());
    const __m512 rest = _mm512_sub_ps(x, _mm512_castsi512_ps(first));
    const __m512i second = _mm512_and_si512(_mm512_castps_si512(rest), high_halves());
    return {{first, second, _mm512_castps_si512(_mm512_sub_ps(rest, _mm512_castsi512_ps(second)))}};
}

// 32 numbers in bf16, or their three parts.
template <std::size_t Count>
struct Halves {
    __m512i part[Count];
};

// 16 numbers, and 16 behind them.
template <std::size_t Count>
inline Halves<Count> side_by_side(__m512 low, __m512 high) {
    if constexpr (Count == 1) {
        return {{(__m512i)_mm512_cvtne2ps_pbh(high, low)}};
    } else {
        alignas(64) static constexpr std::int16_t kOdd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                              23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                              45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
        const __m512i odd = _mm512_load_si512(kOdd);
        const Parts a = split(low), b = split(high);
        Halves<Count> halves;
#pragma GCC unroll 3
        for (std::size_t part = 0; part < Count; ++part)
            halves.part[part] = _mm512_permutex2var_epi16(a.part[part], odd, b.part[part]);
        return halves;
    }
}

// 16 numbers, each beside its neighbour of 16 others.
template <std::size_t Count>
inline Halves<Count> in_turn(__m512 first, __m512 second) {
    if constexpr (Count == 1) {
        alignas(64) static constexpr std::int16_t kInTurn[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                                 21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                                 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second, first);
        return {{_mm512_permutexvar_epi16(_mm512_load_si512(kInTurn), both)}};
    } else {
        const Parts a = split(first), b = split(second);
        Halves<Count> halves;
#pragma GCC unroll 3
        for (std::size_t part = 0; part < Count; ++part) {
            halves.part[part] = _mm512_ternarylogic_epi32(_mm512_srli_epi32(a.part[part], 16), b.part[part], high_halves(),
                                                          0xf8);  // the first, or what both others have
        }
        return halves;
    }
}

}  // namespace
}  // namespace sluice
