// Attention with queries, keys, values and powers rounded to bf16, by VDPBF16PS.
#include "vector_attention.h"

#include "attention_packing.h"

namespace sluice {
namespace {

struct RoundedPairs {
    static constexpr std::size_t group = 2, step = kStep, step_vectors = 4;
    static constexpr bool hides_nan = true;  // the power of a score that is none is 0
    static constexpr float octave = kRoundedOctave;
    typedef __m512i Largest;  // of halves

    static __m512 add(__m512 sums, __m512 word, __m512 line) {
        return _mm512_dpbf16_ps(sums, (__m512bh)word, (__m512bh)line);
    }

    static void pack_row(const float *row, std::size_t depth, float factor, float *to) {
        for (std::size_t k = 0; k < depth; k += kStep, to += kLanes)
            _mm512_store_si512(to, row_halves<1>(row + k, depth - k, factor).part[0]);
    }

    // Whether all are numbers. Of queries and values what is none makes a result that is none.
    static bool pack_keys(const Heads &keys, const float *rows, std::size_t depth, float *to) {
        const std::size_t tiles = divide_up(keys.rows, kTileKeys) * kTileVectors;
        sluice::pack_keys<1, kPackedAhead>(keys, rows, depth, tiles, reinterpret_cast<std::uint8_t *>(to));
        __m512i largest = _mm512_setzero_si512();
        const float *const end = to + tiles * kLanes * divide_up(depth, kStep) * kLanes;
        for (; to < end; to += kLanes) {
            const __m512i magnitudes = _mm512_and_si512(_mm512_load_si512(to), _mm512_set1_epi16(0x7fff));
            largest = _mm512_max_epi16(largest, magnitudes);
        }
        return _mm512_cmpge_epi16_mask(largest, _mm512_set1_epi16(0x7f80)) == 0;
    }

    static void pack_values(const Heads &values, const float *rows, std::size_t depth, float *to) {
        const std::size_t steps = divide_up(values.rows, kTileKeys) * kTileKeys / kStep;
        sluice::pack_values<1, kPackedAhead>(values, rows, depth, steps, reinterpret_cast<std::uint8_t *>(to));
    }

    static Largest none_yet() { return _mm512_set1_epi16(-32768); }
    static bool grew(Largest largest) {
        return _mm512_cmpgt_epi16_mask(largest, _mm512_set1_epi16(static_cast<short>(kSlack * octave))) != 0;
    }

    // Scores of a step become powers and are added to the sum.
    static void soften(const float *scores, float base, __m512 &sum, Largest &largest, float *to) {
        const __m512i one = _mm512_set1_epi16(127 << 7);
#pragma GCC unroll 4
        for (std::size_t at = 0; at < step_vectors * kLanes; at += 2 * kLanes, to += kLanes) {
            const __m512i octaves =
                rounded_scores(_mm512_load_ps(scores + at) - base, _mm512_load_ps(scores + at + kLanes) - base);
            largest = _mm512_max_epi16(largest, octaves);
            const __m512i powers = looked_up_powers(octaves);
            _mm512_store_si512(to, powers);
            sum = _mm512_dpbf16_ps(sum, (__m512bh)powers, (__m512bh)one);
        }
    }
};

}  // namespace

const VectorAttention kBf16Attention = {scratch_floats<RoundedPairs>, attend<RoundedPairs>};

}  // namespace sluice
