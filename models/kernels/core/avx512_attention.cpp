// Attention in float32, by AVX-512.
#include "vector_attention.h"

namespace sluice {
namespace {

struct Floats {
    static constexpr std::size_t group = 1, step = 1, step_vectors = 2;
    static constexpr bool hides_nan = false;
    static constexpr float octave = 1;
    typedef __m512 Largest;

    static __m512 add(__m512 sums, __m512 word, __m512 line) { return _mm512_fmadd_ps(word, line, sums); }

    static void pack_row(const float *row, std::size_t depth, float factor, float *to) {
        for (std::size_t k = 0; k < depth; k += kLanes)
            _mm512_store_ps(to + k, _mm512_maskz_loadu_ps(first_lanes(depth - k), row + k) * factor);
    }

    static bool pack_keys(const Heads &keys, const float *rows, std::size_t depth, float *to) {
        const std::size_t all = divide_up(keys.rows, kTileKeys) * kTileKeys;
        for (std::size_t key = 0; key < all; key += kLanes) {
            for (std::size_t next = key + kLanes; next < key + 2 * kLanes && next < keys.rows; ++next)
                fetch(rows + next * keys.stride, depth);
            for (std::size_t k = 0; k < depth; k += kLanes, to += kLanes * kLanes) {
                __m512i found[kLanes];
#pragma GCC unroll 16
                for (std::size_t i = 0; i < kLanes; ++i) {
                    found[i] = _mm512_setzero_si512();
                    if (key + i >= keys.rows) continue;
                    found[i] = _mm512_maskz_loadu_epi32(first_lanes(depth - k), rows + (key + i) * keys.stride + k);
                }
                transpose_pairs(found, to);
            }
        }
        return true;
    }

    static void pack_values(const Heads &values, const float *rows, std::size_t depth, float *to) {
        const std::size_t all = divide_up(values.rows, kTileKeys) * kTileKeys;
        for (std::size_t key = 0; key < all; ++key, to += kLanes) {
            const float *row = rows + key * values.stride;
            if (key + kPackedAhead < values.rows) fetch(row + kPackedAhead * values.stride, depth);
            for (std::size_t column = 0; column < depth; column += kLanes) {
                __m512 found = _mm512_setzero_ps();
                if (key < values.rows) found = _mm512_maskz_loadu_ps(first_lanes(depth - column), row + column);
                _mm512_store_ps(to + column * all, found);
            }
        }
    }

    static Largest none_yet() { return _mm512_set1_ps(-__builtin_inff()); }
    static bool grew(Largest largest) { return _mm512_cmp_ps_mask(largest, _mm512_set1_ps(kSlack), _CMP_GT_OQ) != 0; }

    // Scores of two vectors of keys become powers and are added to the sum.
    static void soften(const float *scores, float base, __m512 &sum, Largest &largest, float *to) {
        const __m512 low = _mm512_load_ps(scores) - base, high = _mm512_load_ps(scores + kLanes) - base;
        largest = _mm512_max_ps(_mm512_max_ps(low, high), largest);
        const __m512 first = exact_power(low), second = exact_power(high);
        _mm512_store_ps(to, first);
        _mm512_store_ps(to + kLanes, second);
        sum += first + second;
    }
};

}  // namespace

const VectorAttention kAvx512Attention = {scratch_floats<Floats>, attend<Floats>};

}  // namespace sluice
