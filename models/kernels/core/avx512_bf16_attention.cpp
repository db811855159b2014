// Attention with queries, keys, values and powers rounded to bf16, by VDPBF16PS.
#include "vector_attention.h"

#include "attention_packing.h"

namespace sluice {
namespace {

struct RoundedPairs {
    static constexpr std::size_t group = 2, step = kStep;
    static constexpr float octave = kRoundedOctave;

    static __m512 add(__m512 sums, __m512 word, __m512 line) {
        return _mm512_dpbf16_ps(sums, (__m512bh)word, (__m512bh)line);
    }

    static void pack_row(const float *row, std::size_t depth, float factor, float *to) {
        for (std::size_t k = 0; k < depth; k += kStep, to += kLanes)
            _mm512_store_si512(to, row_halves<1>(row + k, depth - k, factor).part[0]);
    }

    static void pack_keys(const Heads &keys, const float *rows, std::size_t depth, float *to) {
        const std::size_t tiles = divide_up(keys.rows, kTileKeys) * kTileVectors;
        sluice::pack_keys<1>(keys, rows, depth, tiles, reinterpret_cast<std::uint8_t *>(to));
    }

    static void pack_values(const Heads &values, const float *rows, std::size_t depth, float *to) {
        const std::size_t steps = divide_up(values.rows, kTileKeys) * kTileKeys / kStep;
        sluice::pack_values<1>(values, rows, depth, steps, reinterpret_cast<std::uint8_t *>(to));
    }

    // Scores of a step become powers and are added to the sum.
    static __m512 soften(__m512 low, __m512 high, __m512 sum, float *to) {
        const __m512i powers = rounded_powers(low, high);
        _mm512_store_si512(to, powers);
        return _mm512_dpbf16_ps(sum, (__m512bh)powers, (__m512bh)_mm512_set1_epi16(127 << 7));
    }
};

// Of keys alone: all else that is not a number makes a result that is none, but the power of a score that is none would
// be 0.
bool finite_keys(const Attention &attention) {
    std::size_t key_heads = 0;
    for (std::size_t h = 0; h < attention.heads; ++h) {
        const std::size_t own = attention.key_head(h) + 1;
        key_heads = own > key_heads ? own : key_heads;
    }
    return finite(attention.keys, key_heads * attention.head_size);
}

}  // namespace

const VectorAttention kBf16Attention = {finite_keys, scratch_floats<RoundedPairs>, attend<RoundedPairs>};

}  // namespace sluice
