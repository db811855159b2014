// Seven products of halves in place of eight, a tile at a time: see strassen.h.
#pragma once

#include "instruction_set.h"
#include "tile_sizes.h"
#include "vector.h"

namespace sluice {
namespace {

// A tile of 12 × 2 sums reads half as much of the weights, which come from the second cache, as one of 6 × 4.
constexpr std::size_t kHalfRows = kManyRegisters ? 12 : 6, kHalfVectors = 2;

constexpr std::size_t kHalfWidth = kHalfVectors * kLanes;

using Weight = Vector[kHalfVectors];

// Where a product reads its weights, those of an input after the other: those of the layer, or such as were mixed before.
struct Laid {
    const float *row;
    std::size_t step;

    void read(Weight &w) {
#pragma GCC unroll 2
        for (std::size_t v = 0; v < kHalfVectors; ++v) w[v] = load(row + v * kLanes);
        row += step;
    }
};

// a − b, which it leaves in `mixed`.
struct Difference {
    const float *a;
    std::size_t a_step;
    const float *b;
    std::size_t b_step;
    float *mixed;

    void read(Weight &w) {
#pragma GCC unroll 2
        for (std::size_t v = 0; v < kHalfVectors; ++v) {
            w[v] = load(a + v * kLanes) - load(b + v * kLanes);
            store(mixed + v * kLanes, w[v]);
        }
        a += a_step, b += b_step, mixed += kHalfBlock;
    }
};

// A tile fetches weights for a later one, a few bytes further at each step of its products. That most are of the line of
// the step before costs less than to ask whether they are.
struct Fetching {
    const char *next;
    std::size_t bytes;

    __attribute__((always_inline)) void step() {
        __builtin_prefetch(next, 0, 3);
        next += bytes;
    }
};

template <std::size_t Rows>
using HalfSums = Vector[Rows][kHalfVectors];

// Sums of a tile that are added to its own: rows of kBlock columns. Null: none.
using Addends = const float *[2];

template <std::size_t Rows>
__attribute__((always_inline)) inline void add(HalfSums<Rows> &sum, const Addends &others) {
    for (const float *other : others) {
        if (!other) continue;
#pragma GCC unroll 12
        for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
            for (std::size_t v = 0; v < kHalfVectors; ++v) sum[r][v] += load(other + r * kBlock + v * kLanes);
        }
    }
}

template <std::size_t Rows>
__attribute__((always_inline)) inline void keep(const HalfSums<Rows> &sum, float *to) {
#pragma GCC unroll 12
    for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
        for (std::size_t v = 0; v < kHalfVectors; ++v) store(to + r * kBlock + v * kLanes, sum[r][v]);
    }
}

// Some rows of a half by some columns: their sums and, of the last inputs, their result.
struct Quadrant {
    float *sums;
    HalvesTile::Columns columns;
    float *out;
    std::size_t stride, rows;
    bool last;
};

// It is sums and what is beside them.
template <std::size_t Rows>
__attribute__((always_inline)) inline void give(const HalfSums<Rows> &sums, const Addends &beside, const Quadrant &q) {
    HalfSums<Rows> y;
    __builtin_memcpy(&y, &sums, sizeof y);
    add<Rows>(y, beside);
    if (!q.last) return keep<Rows>(y, q.sums);
    const Vector floor = broadcast(q.columns.floor), ceiling = broadcast(q.columns.ceiling);
#pragma GCC unroll 2
    for (std::size_t v = 0; v < kHalfVectors; ++v) {
        const std::size_t column = v * kLanes;
        const Vector scale = load(q.columns.scale + column), shift = load(q.columns.shift + column);
        const Vector saliency = load(q.columns.saliency + column);
#pragma GCC unroll 12
        for (std::size_t r = 0; r < Rows; ++r) {
            if (r == q.rows) break;
            store(q.out + r * q.stride + column, at_most(at_least(y[r][v] * scale + shift, floor), ceiling) * saliency);
        }
    }
}

struct HalfRows {
    const float *first;
    std::size_t stride;
};

// One of the seven, added to the sums of the one before it in a chain; and what becomes of them.
template <typename Source>
struct Link {
    HalfRows x;
    Source weights;
    float *kept = nullptr;               // they are kept here; null: not
    const Quadrant *quadrant = nullptr;  // they are, with those beside, this quadrant; null: none
    Addends beside = {};
};

// Products whose sums stay in registers, from those of `start` on. One loop for all of them, and not inlined: else the
// compiler keeps the sums of one product in other registers than those of the next, and moves them all.
template <std::size_t Rows, typename Source, std::size_t Count>
__attribute__((noinline)) void chain(const Addends &start, const Link<Source> (&links)[Count], std::size_t depth,
                                     Fetching &fetched) {
    HalfSums<Rows> sum = {};
    add<Rows>(sum, start);
    Fetching fetching = fetched;
    for (const Link<Source> &link : links) {
        constexpr std::size_t kGroup = 3;  // rows that are found from one pointer, for there are few registers
        const std::size_t stride = link.x.stride;
        const float *rows[(Rows + kGroup - 1) / kGroup];
        for (std::size_t r = 0; r < Rows; r += kGroup) rows[r / kGroup] = link.x.first + r * stride;
        Source source = link.weights;
        for (std::size_t k = 0; k < depth; ++k) {
            fetching.step();
            Weight w;
            source.read(w);
#pragma GCC unroll 12
            for (std::size_t r = 0; r < Rows; ++r) {
                const Vector a = broadcast(rows[r / kGroup][r % kGroup * stride]);
#pragma GCC unroll 2
                for (std::size_t v = 0; v < kHalfVectors; ++v) sum[r][v] += a * w[v];
            }
#pragma GCC unroll 4
            for (std::size_t r = 0; r < Rows; r += kGroup) ++rows[r / kGroup];
        }
        if (link.kept) keep<Rows>(sum, link.kept);
        if (link.quadrant) give<Rows>(sum, link.beside, *link.quadrant);
    }
    fetched.next = fetching.next;
}

// Where a mixture of weights is read, or made first from two others: a − b.
template <bool Mixes>
auto mixture(const float *a, std::size_t a_step, const float *b, std::size_t b_step, float *mixed) {
    if constexpr (Mixes) {
        return Difference{a, a_step, b, b_step, mixed};
    } else {
        return Laid{mixed, kHalfBlock};
    }
}

// With rows p q over r s and weights a b over c d the upper left quadrant is pa + qc, and with
//   s0 = r + s, s1 = s0 - p, s2 = p - r, s3 = q - s1   of rows,
//   t0 = b - a, t1 = d - t0, t2 = d - b, t3 = c - t1   of weights, and two = pa + s1 t1
// the upper right is two + s0 t0 + s3 d, the lower left two + s2 t2 + s t3, the lower right two + s0 t0 + s2 t2. In order:
// pa, + qc; s0 t0; pa + s1 t1, + s2 t2 (to the lower right beside s0 t0), + s t3; two + s0 t0 + s3 d.
// Each product makes one mixture at most: one that made two would wait for the second cache.
template <std::size_t Rows, bool Mixes>
void halves_tile(const HalvesTile &t, std::size_t column, Fetching &fetching) {
    alignas(64) float first[Rows * kBlock], two[Rows * kBlock], outer[Rows * kBlock];
    const std::size_t depth = t.depth, half = depth * kHalfBlock;
    const HalfRows upper{t.upper, t.upper_stride}, upper_back{t.upper + depth, t.upper_stride},
        lower_back{t.lower + depth, t.lower_stride};
    const auto mixed = [&](std::size_t i) { return HalfRows{t.mixed_rows + i * t.mixed_apart, depth}; };
    const float *const a = t.weights + column, *const b = a + kHalfBlock, *const c = a + depth * kBlock,
                *const d = c + kHalfBlock;
    float *const t0 = t.mixed_weights + column, *const t1 = t0 + half, *const t2 = t1 + half, *const t3 = t2 + half;
    const auto quadrant = [&](std::size_t rows, std::size_t from) {
        const HalvesTile::Columns &of = t.columns;
        return Quadrant{t.sums[rows] + from, {of.scale + from, of.shift + from, of.saliency + from, of.floor, of.ceiling},
                        t.out[rows] + from, t.out_stride, rows ? t.lower_rows : Rows, t.last};
    };
    const Quadrant upper_left = quadrant(0, column), upper_right = quadrant(0, kHalfBlock + column),
                   lower_left = quadrant(1, column), lower_right = quadrant(1, kHalfBlock + column);
    const auto earlier = [&](const Quadrant &q) -> const float * { return t.first ? nullptr : q.sums; };
    using Mixture = decltype(mixture<Mixes>(a, kBlock, b, kBlock, t0));

    const Link<Laid> left[] = {{upper, {a, kBlock}, first},
                               {upper_back, {c, kBlock}, nullptr, &upper_left, {earlier(upper_left)}}};
    chain<Rows>({}, left, depth, fetching);
    const Link<Mixture> zeroth[] = {{mixed(0), mixture<Mixes>(b, kBlock, a, kBlock, t0), outer}};
    chain<Rows>({}, zeroth, depth, fetching);
    const Link<Mixture> lower[] = {
        {mixed(1), mixture<Mixes>(d, kBlock, t0, kHalfBlock, t1), two},
        {mixed(2), mixture<Mixes>(d, kBlock, b, kBlock, t2), nullptr, &lower_right, {outer, earlier(lower_right)}},
        {lower_back, mixture<Mixes>(c, kBlock, t1, kHalfBlock, t3), nullptr, &lower_left, {earlier(lower_left)}}};
    chain<Rows>({first}, lower, depth, fetching);
    const Link<Laid> right[] = {{mixed(3), {d, kBlock}, nullptr, &upper_right, {earlier(upper_right)}}};
    chain<Rows>({two, outer}, right, depth, fetching);
}

template <std::size_t Rows>
void halves_tile(const HalvesTile &t, std::size_t rows) {
    if (rows != Rows) {
        if constexpr (Rows < kHalfRows) halves_tile<Rows + 1>(t, rows);
        return;
    }
    Fetching fetching{t.ahead, t.ahead_bytes * kHalfWidth / kHalfBlock};
    for (std::size_t column = 0; column < kHalfBlock; column += kHalfWidth) {
        if (t.mixes) halves_tile<Rows, true>(t, column, fetching);
        else halves_tile<Rows, false>(t, column, fetching);
    }
}

void halves_tile(const HalvesTile &t, std::size_t rows) { halves_tile<1>(t, rows); }

inline IntVector magnitude(Vector x) { return (IntVector)x & 0x7fffffff; }
inline std::int32_t magnitude(float x) {
    std::int32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits & 0x7fffffff;
}

template <typename T>
inline T larger(T a, T b) {
    return a > b ? a : b;
}

inline std::int32_t largest_of(IntVector values) {
#if LANES == 16
    return _mm512_reduce_max_epi32((__m512i)values);
#endif
    std::int32_t largest = 0;
    for (std::size_t lane = 0; lane < kLanes; ++lane) largest = larger(largest, values[lane]);
    return largest;
}

RowPairBits mix_rows(const float *upper, const float *lower, std::size_t depth, std::size_t apart, float *mixed) {
    IntVector upper_bits = {}, lower_bits = {};
    RowPairBits largest{0, 0};
    const auto mix = [&](std::size_t k, auto a, auto b, auto c, auto d, auto &largest_upper, auto &largest_lower, auto put) {
        largest_upper = larger(largest_upper, larger(magnitude(a), magnitude(b)));
        largest_lower = larger(largest_lower, larger(magnitude(c), magnitude(d)));
        const auto both = c + d, less = both - a;
        put(mixed + k, both);
        put(mixed + apart + k, less);
        put(mixed + 2 * apart + k, a - c);
        put(mixed + 3 * apart + k, b - less);
    };
    std::size_t k = 0;
    for (; k + kLanes <= depth; k += kLanes) {
        mix(k, load(upper + k), load(upper + depth + k), load(lower + k), load(lower + depth + k), upper_bits, lower_bits,
            [](float *to, Vector y) { store(to, y); });
    }
    for (; k < depth; ++k) {
        mix(k, upper[k], upper[depth + k], lower[k], lower[depth + k], largest.upper, largest.lower,
            [](float *to, float y) { *to = y; });
    }
    return {larger(largest.upper, largest_of(upper_bits)), larger(largest.lower, largest_of(lower_bits))};
}

}  // namespace
}  // namespace sluice
