// Attention of many queries by vector instructions. Scores of a few queries become powers while they are in registers, and
// values are summed by those while they are in the nearest cache. A source file says with `Kind` what is multiplied, in
// words of 32 bits: floats, or pairs of bf16.
#pragma once

#define LANES 16
#include "attention.h"
#include "powers.h"
#include "transposed_lines.h"

namespace sluice {
namespace {

constexpr std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// Sums of a tile, all of them in registers: queries × vectors of keys, or of columns of the values.
constexpr std::size_t kTileQueries = 6, kTileVectors = 4;

// Keys of a tile of scores; how many words of powers a query has for a block of keys. So the keys and values of a block,
// 32 KiB for a head of 64, stay in the nearest cache for all queries of a block.
constexpr std::size_t kTileKeys = kTileVectors * kLanes, kBlockWords = 64;
constexpr std::size_t kBlockQueries = 48;

template <typename Kind>
constexpr std::size_t kBlockKeys = kBlockWords * Kind::group;

// Of a query: powers are relative to 2^base, a whole number. It follows the largest score only where powers would grow past
// 2^kSlack: sums of float32 have the room.
constexpr float kSlack = 16;

struct Softened {
    bool begun = false;  // a score that is not −∞ was seen
    float base = 0;
    __m512 sum = _mm512_setzero_ps();
};

// What is packed of a head, and the sums of a block of queries, in words.
template <typename Kind>
struct Packed {
    std::size_t depth_words, keys, value_words, values, value_columns, queries, sums;

    explicit Packed(const Attention &attention)
        : depth_words(divide_up(attention.head_size, kLanes * Kind::group) * kLanes),
          keys(divide_up(attention.keys.rows, kTileKeys) * kTileKeys * depth_words),
          value_words(divide_up(attention.keys.rows, kTileKeys) * kTileKeys / Kind::group),
          values(0),
          value_columns(divide_up(attention.value_size, kLanes) * kLanes),
          queries(kBlockQueries * depth_words),
          sums(kBlockQueries * value_columns) {
        values = value_words * value_columns;
    }

    std::size_t words() const { return keys + values + queries + sums; }
};

// sums[r][v] += Σ_k rows[r][k] · lines[v][k].
template <typename Kind, std::size_t Rows, std::size_t Vectors>
inline void add_products(__m512 (&sums)[Rows][Vectors], const float *rows, std::size_t row_stride, const float *lines,
                         std::size_t stride, std::size_t words) {
    for (std::size_t k = 0; k < words; ++k) {
        __m512 line[Vectors];
#pragma GCC unroll 4
        for (std::size_t v = 0; v < Vectors; ++v) line[v] = _mm512_load_ps(lines + v * stride + k * kLanes);
#pragma GCC unroll 6
        for (std::size_t r = 0; r < Rows; ++r) {
            const __m512 word = _mm512_set1_ps(rows[r * row_stride + k]);
#pragma GCC unroll 4
            for (std::size_t v = 0; v < Vectors; ++v) sums[r][v] = Kind::add(sums[r][v], word, line[v]);
        }
    }
}

// One head of the queries, and the keys and values that it reads.
template <typename Kind>
struct Head {
    const Attention &attention;
    const Packed<Kind> &packed;
    std::size_t number;  // among the heads
    const float *keys;   // [16 keys][word of depth][lane]
    const float *values;  // [16 columns][word of keys][lane]
    float *queries;      // of a block, [query][word of depth]
    float *sums;         // of a block, [query][column]

    // Adds the bias to the scores of a query for keys from `first_key` on, and hides those that it does not see.
    void add_bias(std::size_t query, std::size_t first_key, std::size_t width, float *scores) const {
        const float *bias = attention.bias_of(number, query);
        const std::size_t sees = attention.visible(query), count = sees > first_key ? sees - first_key : 0;
        for (std::size_t at = 0; at < width; at += kLanes) {
            const __mmask16 seen = count > at ? first_lanes(count - at) : 0;
            __m512 score = _mm512_load_ps(scores + at);
            if (bias) score += _mm512_maskz_loadu_ps(seen, bias + first_key + at) * (kLog2E * Kind::octave);
            _mm512_store_ps(scores + at, _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), seen, score));
        }
    }

    // scores[query][key] of some queries for a tile of keys. A function of its own, so that all its sums are in registers.
    template <std::size_t Rows>
    [[gnu::noinline]] void score(std::size_t first, std::size_t first_key, float *scores) const {
        __m512 found[Rows][kTileVectors] = {};
        add_products<Kind>(found, queries + first * packed.depth_words, packed.depth_words,
                           keys + first_key * packed.depth_words, kLanes * packed.depth_words,
                           divide_up(attention.head_size, Kind::group));
#pragma GCC unroll 6
        for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
            for (std::size_t v = 0; v < kTileVectors; ++v)
                _mm512_store_ps(scores + r * kBlockKeys<Kind> + v * kLanes, found[r][v]);
        }
    }

    // The scores of a query for a block of keys become powers.
    void soften(const float *scores, std::size_t width, Softened &state, float *query_sums, float *powers) const {
        if (!state.begun) rebase(scores, width, state, query_sums);
        for (;;) {
            const __m512 base = _mm512_set1_ps(state.base), most = _mm512_set1_ps(kSlack * Kind::octave);
            __m512 largest = _mm512_set1_ps(-__builtin_inff()), sum = state.sum;
            float *to = powers;
            for (std::size_t at = 0; at < width; at += 2 * kLanes, to += 2 * kLanes / Kind::group) {
                const __m512 low = _mm512_load_ps(scores + at) - base, high = _mm512_load_ps(scores + at + kLanes) - base;
                largest = _mm512_max_ps(_mm512_max_ps(low, high), largest);
                sum = Kind::soften(low, high, sum, to);
            }
            if (!_mm512_cmp_ps_mask(largest, most, _CMP_GT_OQ)) {
                state.sum = sum;
                return;
            }
            rebase(scores, width, state, query_sums);
        }
    }

    // The largest score of a block becomes the base of a query.
    void rebase(const float *scores, std::size_t width, Softened &state, float *query_sums) const {
        __m512 all = _mm512_set1_ps(-__builtin_inff());
        for (std::size_t at = 0; at < width; at += kLanes) all = _mm512_max_ps(_mm512_load_ps(scores + at), all);
        const float largest = largest_of((Vector)all);
        if (largest == -__builtin_inff()) return;
        const float base = __builtin_ceilf(largest / Kind::octave) * Kind::octave, by = (state.base - base) / Kind::octave;
        if (state.begun) {
            const __m512 kept = _mm512_scalef_ps(_mm512_set1_ps(by < -126.0f ? 0.0f : 1.0f), _mm512_set1_ps(by));
            state.sum *= kept;
            for (std::size_t c = 0; c < packed.value_columns; c += kLanes)
                _mm512_store_ps(query_sums + c, _mm512_load_ps(query_sums + c) * kept);
        }
        state.base = base;
        state.begun = true;
    }

    template <std::size_t Rows, std::size_t Vectors>
    [[gnu::noinline]] void add_values(const float *powers, std::size_t first, std::size_t first_key, std::size_t words,
                    std::size_t column) const {
        __m512 total[Rows][Vectors];
        float *from = sums + first * packed.value_columns + column;
#pragma GCC unroll 6
        for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
            for (std::size_t v = 0; v < Vectors; ++v) {
                total[r][v] = first_key == 0 ? _mm512_setzero_ps()
                                             : _mm512_load_ps(from + r * packed.value_columns + v * kLanes);
            }
        }
        add_products<Kind>(total, powers, kBlockWords,
                           values + column * packed.value_words + first_key / Kind::group * kLanes,
                           packed.value_words * kLanes, words);
#pragma GCC unroll 6
        for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
            for (std::size_t v = 0; v < Vectors; ++v)
                _mm512_store_ps(from + r * packed.value_columns + v * kLanes, total[r][v]);
        }
    }

    // Queries `first` … `first + Rows` of the block that begins with query `block`, for a block of keys.
    template <std::size_t Rows>
    void run_tile(std::size_t block, std::size_t first, std::size_t first_key, std::size_t end, Softened *states) const {
        alignas(64) float scores[Rows * kBlockKeys<Kind>], powers[Rows * kBlockWords];
        const std::size_t width = end - first_key < kBlockKeys<Kind> ? end - first_key : kBlockKeys<Kind>;
        for (std::size_t at = 0; at < width; at += kTileKeys)
            score<Rows>(first, first_key + at, scores + at);
        const std::size_t padded = divide_up(width, kTileKeys) * kTileKeys;
        const bool biased = attention.bias || width < padded || attention.visible(block + first) < first_key + width;
        for (std::size_t r = 0; r < Rows; ++r) {
            const std::size_t i = first + r;
            float *own = scores + r * kBlockKeys<Kind>;
            if (biased) add_bias(block + i, first_key, padded, own);
            soften(own, padded, states[i], sums + i * packed.value_columns, powers + r * kBlockWords);
        }
        const std::size_t words = divide_up(width, Kind::step) * Kind::step / Kind::group;
        for (std::size_t column = 0; column < packed.value_columns; column += kTileVectors * kLanes) {
            switch ((packed.value_columns - column) / kLanes) {
                case 1: add_values<Rows, 1>(powers, first, first_key, words, column); break;
                case 2: add_values<Rows, 2>(powers, first, first_key, words, column); break;
                case 3: add_values<Rows, 3>(powers, first, first_key, words, column); break;
                default: add_values<Rows, 4>(powers, first, first_key, words, column);
            }
        }
    }

    template <std::size_t Rows>
    void run_tile(std::size_t rows, std::size_t block, std::size_t first, std::size_t first_key, std::size_t end,
                  Softened *states) const {
        if (rows == Rows) {
            run_tile<Rows>(block, first, first_key, end, states);
        } else if constexpr (Rows < kTileQueries) {
            run_tile<Rows + 1>(rows, block, first, first_key, end, states);
        }
    }

    // Queries `block` … `block + count`.
    void run_block(std::size_t block, std::size_t count, float *out) const {
        Softened states[kBlockQueries];
        const float *from = attention.queries_of(number) + block * attention.queries.stride;
        for (std::size_t i = 0; i < count; ++i) {
            if (i + kRowsAhead < count) fetch(from + (i + kRowsAhead) * attention.queries.stride, attention.head_size);
            Kind::pack_row(from + i * attention.queries.stride, attention.head_size,
                           attention.scale * kLog2E * Kind::octave, queries + i * packed.depth_words);
        }
        // Shared out evenly.
        const std::size_t tiles = divide_up(count, kTileQueries), last = attention.visible(block + count - 1);
        for (std::size_t first_key = 0; first_key < last; first_key += kBlockKeys<Kind>) {
            for (std::size_t i = 0; i < tiles; ++i) {
                const std::size_t first = i * count / tiles, rows = (i + 1) * count / tiles - first;
                const std::size_t end = attention.visible(block + first + rows - 1);
                if (first_key < end) run_tile<1>(rows, block, first, first_key, end, states);
            }
        }
        for (std::size_t i = 0; i < count; ++i, out += attention.out_stride) {
            const __m512 factor = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(states[i].sum));
            const float *sum = sums + i * packed.value_columns;
            for (std::size_t c = 0; c < attention.value_size; c += kLanes) {
                _mm512_mask_storeu_ps(out + c, first_lanes(attention.value_size - c),
                                      _mm512_load_ps(sum + c) * factor);
            }
        }
    }
};

template <typename Kind>
void attend(const Attention &attention, float *scratch, float *out) {
    const Packed<Kind> packed(attention);
    float *keys = scratch, *values = keys + packed.keys, *queries = values + packed.values,
          *sums = queries + packed.queries;
    const std::size_t n_queries = attention.queries.rows, tiles = divide_up(n_queries, kTileQueries),
                      blocks = divide_up(n_queries, kBlockQueries);
    for (std::size_t h = 0; h < attention.heads; ++h) {
        const std::size_t key_head = attention.key_head(h);
        if (h == 0 || key_head != attention.key_head(h - 1)) {
            Kind::pack_keys(attention.keys, attention.keys.values + key_head * attention.head_size, attention.head_size,
                            keys);
            Kind::pack_values(attention.values, attention.values.values + key_head * attention.value_size,
                              attention.value_size, values);
        }
        const Head<Kind> head{attention, packed, h, keys, values, queries, sums};
        for (std::size_t i = 0; i < blocks; ++i) {
            // Shared out evenly, in whole tiles.
            const std::size_t first = i * tiles / blocks * kTileQueries, end = (i + 1) * tiles / blocks * kTileQueries;
            head.run_block(first, (end < n_queries ? end : n_queries) - first, attention.out_of(out, h, first));
        }
    }
}

template <typename Kind>
std::size_t scratch_floats(const Attention &attention) {
    return Packed<Kind>(attention).words();
}

}  // namespace
}  // namespace sluice
