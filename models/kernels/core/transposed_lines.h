// Rows of registers that become lines of memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include <immintrin.h>

namespace sluice {
namespace {

inline __mmask16 first_lanes(std::size_t count) {
    return static_cast<__mmask16>(count < 16 ? (1u << count) - 1 : 0xffff);
}

// How many rows ahead of those that are packed others are fetched.
constexpr std::size_t kRowsAhead = 16;

// Asks for a part of a row that is read soon: rows lie too far apart for the processor to see what comes next.
inline void fetch(const float *row, std::size_t count) {
    for (std::size_t at = 0; at < count; at += 16) __builtin_prefetch(row + at);
}

// 16 rows of 16 numbers, or of pairs of halves, become 16 lines, one of each.
inline void transpose_pairs(__m512i (&rows)[16], void *out) {
    auto *to = static_cast<__m512i *>(out);
    __m512i twos[16], fours[16];
#pragma GCC unroll 8
    for (std::size_t i = 0; i < 16; i += 2) {
        twos[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        twos[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 16; i += 4) {  // now lane 4n of fours[i + p] is that of pair 4n + p
        fours[i] = _mm512_unpacklo_epi64(twos[i], twos[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(twos[i], twos[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(twos[i + 1], twos[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(twos[i + 1], twos[i + 3]);
    }
#pragma GCC unroll 4
    for (std::size_t p = 0; p < 4; ++p) {
        const __m512i even = _mm512_shuffle_i32x4(fours[p], fours[4 + p], 0x88),
                      odd = _mm512_shuffle_i32x4(fours[p], fours[4 + p], 0xdd),
                      later_even = _mm512_shuffle_i32x4(fours[8 + p], fours[12 + p], 0x88),
                      later_odd = _mm512_shuffle_i32x4(fours[8 + p], fours[12 + p], 0xdd);
        _mm512_store_si512(to + p, _mm512_shuffle_i32x4(even, later_even, 0x88));
        _mm512_store_si512(to + 4 + p, _mm512_shuffle_i32x4(odd, later_odd, 0x88));
        _mm512_store_si512(to + 8 + p, _mm512_shuffle_i32x4(even, later_even, 0xdd));
        _mm512_store_si512(to + 12 + p, _mm512_shuffle_i32x4(odd, later_odd, 0xdd));
    }
}

}  // namespace
}  // namespace sluice
