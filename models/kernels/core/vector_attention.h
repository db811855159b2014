// Attention of many queries by vector instructions. Scores of a few queries become powers while those of the next are
// summed up, and values are summed by powers while these are in the nearest cache. A source file says with `Kind` what is
// multiplied, in words of 32 bits: floats, or pairs of bf16.
#pragma once

#define LANES 16
#include "attention.h"
#include "softening.h"
#include "transposed_lines.h"

namespace sluice {
namespace {

constexpr std::size_t kBlockQueries = 12 * kTileQueries;

// How many rows ahead of those that are packed others are fetched.
constexpr std::size_t kPackedAhead = 32;

// Blocks of queries of which the next one's are fetched: fewer lie in the second cache.
constexpr std::size_t kManyBlocks = 4;

// What is packed of a head, and the sums of a block of queries, in words.
template <typename Kind>
struct Packed {
    std::size_t depth_words, keys, value_words, values, value_columns, queries, sums, starts;

    explicit Packed(const Attention &attention)
        : depth_words(divide_up(attention.head_size, kLanes * Kind::group) * kLanes),
          keys(divide_up(attention.keys.rows, kTileKeys) * kTileKeys * depth_words),
          value_words(divide_up(attention.keys.rows, kTileKeys) * kTileKeys / Kind::group),
          values(0),
          value_columns(divide_up(attention.value_size, kLanes) * kLanes),
          queries(kBlockQueries * depth_words),
          sums(kBlockQueries * value_columns),
          starts(divide_up(attention.keys.rows, kTileKeys) * kTileKeys) {
        values = value_words * value_columns;
    }

    std::size_t words() const { return keys + values + queries + sums + starts; }
};

// sums[r][v] += Σ_k rows[r][k] · lines[v][k], and after each k a call of meanwhile().
template <typename Kind, std::size_t Rows, std::size_t Vectors, typename Function>
inline void add_products(__m512 (&sums)[Rows][Vectors], const float *rows, std::size_t row_stride, const float *lines,
                         std::size_t stride, std::size_t words, Function meanwhile) {
#pragma GCC unroll 4
    for (std::size_t k = 0; k < words; ++k) {
        __m512 line[Vectors];
#pragma GCC unroll 4
        for (std::size_t v = 0; v < Vectors; ++v) line[v] = _mm512_load_ps(lines + v * stride + k * kLanes);
#pragma GCC unroll 5
        for (std::size_t r = 0; r < Rows; ++r) {
            const __m512 word = _mm512_set1_ps(rows[r * row_stride + k]);
#pragma GCC unroll 4
            for (std::size_t v = 0; v < Vectors; ++v) sums[r][v] = Kind::add(sums[r][v], word, line[v]);
        }
        meanwhile();
    }
}

// Some values of a bias in octaves of powers. What is finite stays so: where all of a query's are the lowest float, as masks
// may have them, they count alike.
template <typename Kind>
inline __m512 scaled_bias(const float *bias, __mmask16 there) {
    const __m512 value = _mm512_maskz_loadu_ps(there, bias), lowest = _mm512_set1_ps(-__FLT_MAX__);
    const __mmask16 finite = _mm512_cmp_ps_mask(value, lowest, _CMP_GE_OQ);
    const __m512 scaled = value * (kLog2E * Kind::octave);
    return _mm512_mask_max_ps(scaled, finite, scaled, lowest);
}

inline bool has_nan(const float *values, std::size_t count) {
    __mmask16 found = 0;
    for (std::size_t i = 0; i < count; i += kLanes) {
        const __m512 part = _mm512_maskz_loadu_ps(first_lanes(count - i), values + i);
        found |= _mm512_cmp_ps_mask(part, part, _CMP_UNORD_Q);
    }
    return found != 0;
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
    const float *starts;  // of the scores of each key

    // Adds a query's own bias to its scores for some keys from `first_key` on, and hides those that it does not see.
    void add_bias(std::size_t query, std::size_t first_key, std::size_t keys, float *scores) const {
        const float *bias = attention.one_bias ? nullptr : attention.bias_of(number, query);
        const std::size_t sees = attention.visible(query), count = sees > first_key ? sees - first_key : 0;
        for (std::size_t at = 0; at < keys; at += kLanes) {
            const __mmask16 seen = count > at ? first_lanes(count - at) : 0;
            __m512 score = _mm512_load_ps(scores + at);
            if (bias) score += scaled_bias<Kind>(bias + first_key + at, seen);
            _mm512_store_ps(scores + at, _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), seen, score));
        }
    }

    // scores[query][key] of some queries for keys up to `end`, vectors of them at a time, while others become powers, a step
    // every `interval` words. A function of its own, so that all its sums are in registers.
    template <std::size_t Rows, std::size_t Vectors>
    [[gnu::noinline]] void score(std::size_t first, std::size_t key, std::size_t end, std::size_t interval, float *scores,
                                 Softening<Kind> &before) const {
        const std::size_t words = divide_up(attention.head_size, Kind::group), depth_words = packed.depth_words;
        const float *rows = queries + first * depth_words;
        std::size_t wait = interval;
        for (; key < end; key += Vectors * kLanes, scores += Vectors * kLanes) {
            __m512 found[Rows][Vectors];
#pragma GCC unroll 4
            for (std::size_t v = 0; v < Vectors; ++v) {
                found[0][v] = _mm512_load_ps(starts + key + v * kLanes);
#pragma GCC unroll 5
                for (std::size_t r = 1; r < Rows; ++r) found[r][v] = found[0][v];
            }
            add_products<Kind>(found, rows, depth_words, keys + key * depth_words, kLanes * depth_words, words, [&] {
                if (--wait > 0) return;
                wait = interval;
                if (before.left()) before.step();
            });
#pragma GCC unroll 5
            for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
                for (std::size_t v = 0; v < Vectors; ++v)
                    _mm512_store_ps(scores + r * kBlockKeys + v * kLanes, found[r][v]);
            }
        }
    }

    // All scores of a tile, while those of the one before become powers.
    template <std::size_t Rows>
    void score(const Meeting &tile, float *scores, Softening<Kind> &before) const {
        const std::size_t words = divide_up(attention.head_size, Kind::group) * divide_up(tile.keys, kTileKeys),
                          steps = before.steps(), interval = words < steps ? 1 : words / (steps + 1);
        // Half of a tile may be enough for the last keys.
        const std::size_t last = tile.keys % kTileKeys, halves = last > 0 && 2 * last <= kTileKeys ? last : 0,
                          whole = tile.first_key + tile.keys - halves;
        score<Rows, kTileVectors>(tile.first, tile.first_key, whole, interval, scores, before);
        if (halves) {
            score<Rows, kTileVectors / 2>(tile.first, whole, whole + halves, interval, scores + tile.keys - halves,
                                          before);
        }
        before.run();
    }

    template <std::size_t Rows>
    void score(std::size_t rows, const Meeting &tile, float *scores, Softening<Kind> &before) const {
        if (rows == Rows) {
            score<Rows>(tile, scores, before);
        } else if constexpr (Rows < kTileQueries) {
            score<Rows + 1>(rows, tile, scores, before);
        }
    }

    // What scores need before they become powers: a bias of their own, and of each query a base.
    void prepare(std::size_t block, const Meeting &tile, float *scores, Softened *states) const {
        constexpr std::size_t kStep = Softening<Kind>::kStep, kHalf = kTileKeys / 2;
        const std::size_t found = divide_up(tile.keys, kHalf) * kHalf, softened = divide_up(tile.keys, kStep) * kStep;
        const std::size_t sees = attention.visible(block + tile.first);
        const bool biased = (attention.bias && !attention.one_bias) ||
                            (sees < attention.keys.rows && sees < tile.first_key + found);
        for (std::size_t i = 0; i < tile.queries; ++i, scores += kBlockKeys) {
            for (std::size_t at = found; at < softened; at += kLanes)
                _mm512_store_ps(scores + at, _mm512_set1_ps(-__builtin_inff()));
            if (biased) add_bias(block + tile.first + i, tile.first_key, found, scores);
            if (states[i].begun) continue;
            // A few scores tell as well as all what powers may be relative to, unless all of them are hidden.
            float *const own = sums + (tile.first + i) * packed.value_columns;
            rebase(scores, found < kTileKeys ? found : kTileKeys, states[i], own);
            if (!states[i].begun) rebase(scores, found, states[i], own);
        }
    }

    // Where scores grew too much for a query's base its powers are made once more, for another base.
    void settle(const Meeting &tile, Softening<Kind> &softening, Softened *states) const {
        if (Kind::grew(softening.largest)) follow(tile, softening, states);
        for (std::size_t i = 0; i < tile.queries; ++i) states[i].sum += softening.sums[i];
    }

    // Which of the queries it was is found out now: that is rare.
    [[gnu::noinline]] void follow(const Meeting &tile, Softening<Kind> &softening, Softened *states) const {
        for (std::size_t i = 0; i < tile.queries; ++i) {
            softening.repeat(i, states[i]);
            if (!Kind::grew(softening.largest)) continue;
            rebase(softening.scores + i * kBlockKeys, divide_up(tile.keys, kLanes) * kLanes, states[i],
                   sums + (tile.first + i) * packed.value_columns);
            softening.repeat(i, states[i]);
        }
    }

    // The largest of some scores becomes the base of a query.
    void rebase(const float *scores, std::size_t keys, Softened &state, float *query_sums) const {
        __m512 all = _mm512_set1_ps(-__builtin_inff());
        for (std::size_t at = 0; at < keys; at += kLanes) all = _mm512_max_ps(_mm512_load_ps(scores + at), all);
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
#pragma GCC unroll 5
        for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
            for (std::size_t v = 0; v < Vectors; ++v) {
                total[r][v] = first_key == 0 ? _mm512_setzero_ps()
                                             : _mm512_load_ps(from + r * packed.value_columns + v * kLanes);
            }
        }
        add_products<Kind>(total, powers, kBlockWords<Kind>,
                           values + column * packed.value_words + first_key / Kind::group * kLanes,
                           packed.value_words * kLanes, words, [] {});
#pragma GCC unroll 5
        for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
            for (std::size_t v = 0; v < Vectors; ++v)
                _mm512_store_ps(from + r * packed.value_columns + v * kLanes, total[r][v]);
        }
    }

    template <std::size_t Rows>
    void add_values(const Meeting &tile, const float *powers) const {
        const std::size_t words = divide_up(tile.keys, Kind::step) * Kind::step / Kind::group;
        for (std::size_t column = 0; column < packed.value_columns; column += kTileVectors * kLanes) {
            switch ((packed.value_columns - column) / kLanes) {
                case 1: add_values<Rows, 1>(powers, tile.first, tile.first_key, words, column); break;
                case 2: add_values<Rows, 2>(powers, tile.first, tile.first_key, words, column); break;
                case 3: add_values<Rows, 3>(powers, tile.first, tile.first_key, words, column); break;
                default: add_values<Rows, 4>(powers, tile.first, tile.first_key, words, column);
            }
        }
    }

    template <std::size_t Rows>
    void add_values(std::size_t rows, const Meeting &tile, const float *powers) const {
        if (rows == Rows) {
            add_values<Rows>(tile, powers);
        } else if constexpr (Rows < kTileQueries) {
            add_values<Rows + 1>(rows, tile, powers);
        }
    }

    // All queries of a block, tile after tile, with all keys. `fetch` is called with the rows, of `count`, that are fetched
    // meanwhile.
    template <typename Function>
    void meet(std::size_t block, std::size_t count, Softened *states, Function fetch) const {
        alignas(64) float scores[2][kTileQueries * kBlockKeys], powers[kTileQueries * kBlockWords<Kind>];
        Softening<Kind> softening;
        Meeting before;
        const auto finish = [&] {
            settle(before, softening, states + before.first);
            add_values<1>(before.queries, before, powers);
        };
        // Shared out evenly. Divisions are done beforehand, since what is between two products keeps their units waiting.
        const std::size_t tiles = divide_up(count, kTileQueries), last = attention.visible(block + count - 1);
        std::size_t firsts[kBlockQueries / kTileQueries + 1];
        for (std::size_t i = 0; i <= tiles; ++i) firsts[i] = i * count / tiles;
        const std::size_t meetings = tiles * divide_up(last, kBlockKeys);
        float *found = scores[0], *other = scores[1];
        std::size_t fetched = 0, due = 0;
        for (std::size_t first_key = 0; first_key < last; first_key += kBlockKeys) {
            for (std::size_t i = 0; i < tiles; ++i) {
                const std::size_t first = firsts[i], rows = firsts[i + 1] - first;
                const std::size_t end = attention.visible(block + first + rows - 1);
                for (due += count; due >= meetings; due -= meetings) fetch(fetched++);
                if (first_key >= end) continue;
                const std::size_t keys = end - first_key < kBlockKeys ? end - first_key : kBlockKeys;
                const Meeting tile{first, rows, first_key, keys};
                score<1>(rows, tile, found, softening);
                if (before.queries) finish();
                prepare(block, tile, found, states + first);
                softening.reset(found, powers, tile, states + first);
                before = tile;
                float *const next = other;
                other = found;
                found = next;
            }
        }
        softening.run();
        if (before.queries) finish();
    }

    // Queries `block` … `block + count`. The next block's are at `next`, null where they are few and near.
    void run_block(std::size_t block, std::size_t count, const float *next, float *out) const {
        Softened states[kBlockQueries];
        const float *from = attention.queries_of(number) + block * attention.queries.stride;
        for (std::size_t i = 0; i < count; ++i) {
            Kind::pack_row(from + i * attention.queries.stride, attention.head_size,
                           attention.scale * kLog2E * Kind::octave, queries + i * packed.depth_words);
        }
        meet(block, count, states, [&](std::size_t row) __attribute__((always_inline)) {
            if (!next) return;
            fetch(next + row * attention.queries.stride, attention.head_size);
            fetch(out + row * attention.out_stride, attention.value_size);
        });
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

// What is added to the scores of each key: the bias of all queries, and -inf where a tile has more keys than there are.
template <typename Kind>
void fill_starts(const Attention &attention, std::size_t keys, float *starts) {
    const float *bias = attention.one_bias ? attention.bias : nullptr;
    for (std::size_t at = 0; at < keys; at += kLanes) {
        const __mmask16 there = at < attention.keys.rows ? first_lanes(attention.keys.rows - at) : 0;
        __m512 start = _mm512_setzero_ps();
        if (bias && there) start = scaled_bias<Kind>(bias + at, there);
        _mm512_store_ps(starts + at, _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), there, start));
    }
}

// The heads up to the first whose keys `Kind` cannot multiply; returns how many that are.
template <typename Kind>
std::size_t attend_heads(const Attention &attention, float *scratch, float *out) {
    const Packed<Kind> packed(attention);
    float *keys = scratch, *values = keys + packed.keys, *queries = values + packed.values,
          *sums = queries + packed.queries, *starts = sums + packed.sums;
    fill_starts<Kind>(attention, packed.starts, starts);
    const std::size_t n_queries = attention.queries.rows, tiles = divide_up(n_queries, kTileQueries),
                      blocks = divide_up(n_queries, kBlockQueries);
    for (std::size_t h = 0; h < attention.heads; ++h) {
        const std::size_t key_head = attention.key_head(h);
        if (Kind::hides_nan && attention.bias &&
            has_nan(attention.bias_of(h, 0), attention.keys.rows * (attention.one_bias ? 1 : n_queries)))
            return h;
        if (h == 0 || key_head != attention.key_head(h - 1)) {
            const float *own = attention.keys.values + key_head * attention.head_size;
            if (!Kind::pack_keys(attention.keys, own, attention.head_size, keys)) return h;
            Kind::pack_values(attention.values, attention.values.values + key_head * attention.value_size,
                              attention.value_size, values);
        }
        const Head<Kind> head{attention, packed, h, keys, values, queries, sums, starts};
        for (std::size_t i = 0; i < blocks; ++i) {
            // Shared out evenly, in whole tiles.
            const std::size_t first = i * tiles / blocks * kTileQueries, end = (i + 1) * tiles / blocks * kTileQueries;
            const float *own = attention.queries_of(h), *next = i + 1 < blocks ? own + end * attention.queries.stride
                                                                               : own + attention.head_size;
            if (blocks < kManyBlocks) next = nullptr;
            head.run_block(first, (end < n_queries ? end : n_queries) - first, next, attention.out_of(out, h, first));
        }
    }
    return attention.heads;
}

// The upper halves of registers are cleared here, where a source file is compiled not to do so behind each function.
template <typename Kind>
std::size_t attend(const Attention &attention, float *scratch, float *out) {
    const std::size_t heads = attend_heads<Kind>(attention, scratch, out);
    _mm256_zeroupper();
    return heads;
}

template <typename Kind>
std::size_t scratch_floats(const Attention &attention) {
    return Packed<Kind>(attention).words();
}

}  // namespace
}  // namespace sluice
