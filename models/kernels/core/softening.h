// The softmax of attention by vectors: the scores of a few queries, of a block of keys, become powers step by step, so that
// this can be done while other scores are summed up. `Kind` says how, see vector_attention.h.
#pragma once

#include "instruction_set.h"
#include "powers.h"

namespace sluice {
namespace {

constexpr std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// Sums of a tile, all of them in registers: queries × vectors of keys, or of columns of the values. Some registers are
// left, for powers.
constexpr std::size_t kTileQueries = 5, kTileVectors = 4;

// Keys of a tile of scores, and of a block: for so many a query's scores become powers before values are summed by them.
constexpr std::size_t kTileKeys = kTileVectors * kLanes, kBlockKeys = 128;

// Words of powers that a query has for a block of keys.
template <typename Kind>
constexpr std::size_t kBlockWords = kBlockKeys / Kind::group;

// Of a query: powers are relative to 2^base, a whole number. It follows the largest score only where powers would grow past
// 2^kSlack: sums of float32 have the room, for values that are no more than 2^100.
constexpr float kSlack = 16;

struct Softened {
    bool begun = false;  // a score that is not −∞ was seen
    float base = 0;
    __m512 sum = _mm512_setzero_ps();
};

// Some queries of a block, and the keys that they meet.
struct Meeting {
    std::size_t first = 0, queries = 0, first_key = 0, keys = 0;
};

// Scores of a tile, [query][key], that become powers, a step of some vectors at a time.
template <typename Kind>
struct Softening {
    static constexpr std::size_t kStep = Kind::step_vectors * kLanes;

    const float *scores = nullptr;
    float *powers = nullptr;
    std::size_t query = 0, queries = 0, at = 0, keys = 0;  // the next step is of this query and of the keys from `at` on
    float bases[kTileQueries] = {};
    __m512 sums[kTileQueries];
    typename Kind::Largest largest;  // of all queries, relative to their bases

    // Filled where it lies: a copy would wait for what was just written to it.
    void reset(const float *from, float *to, const Meeting &tile, const Softened *states) {
        scores = from;
        powers = to;
        query = at = 0;
        queries = tile.queries;
        keys = tile.keys;
        largest = Kind::none_yet();
        for (std::size_t i = 0; i < queries; ++i) begin(i, states[i]);
    }

    void begin(std::size_t number, const Softened &state) {
        bases[number] = state.base;
        sums[number] = _mm512_setzero_ps();
    }

    // One query once more, for a base.
    void repeat(std::size_t number, const Softened &state) {
        begin(number, state);
        largest = Kind::none_yet();
        query = number;
        at = 0;
        while (query == number) step();
    }

    bool left() const { return query < queries; }
    std::size_t steps() const { return queries * divide_up(keys, kStep); }

    [[gnu::always_inline]] void step() {
        const std::size_t place = query * kBlockKeys + at;
        Kind::soften(scores + place, bases[query], sums[query], largest, powers + place / Kind::group);
        at += kStep;
        if (at < keys) return;
        at = 0;
        ++query;
    }

    void run() {
        while (left()) step();
    }
};

}  // namespace
}  // namespace sluice
