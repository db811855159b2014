// The loops of rows_set.h as templates over the vector width; see loops.h. FOR_ZEN may be defined beside LANES.
#pragma once

#include "activations.h"
#include "coarse_loops.h"
#include "rows_set.h"
#include "vector.h"

#if LANES == 8
#include <immintrin.h>
#endif

namespace sluice {
namespace {

constexpr std::size_t kGroupVectors = kGroup / kLanes;

// Rows whose sums of a group fit the registers, beside the weights.
constexpr std::size_t kRowsAtOnce = kLanes == 16 ? 4 : kLanes == 8 ? 2 : 1;

// Whether they are as Zen 5 is fastest with, which was measured there; the rest was on Intel's processors.
#ifndef FOR_ZEN
#define FOR_ZEN false
#endif
constexpr bool kForZen = FOR_ZEN;

// Weights of so many active channels are run through side by side: so many times fewer sums are loaded and stored, and
// while they are, the next ones are fetched. Of eight in int8 too little would be on its way for one row of activations.
template <Datatype D, std::size_t Rows>
constexpr std::size_t kSideBySide = kForZen && D == Datatype::int8 && Rows == 1 ? 16 : 8;

// How many bytes of weights dots() fetches ahead.
constexpr std::size_t kRowAhead = kForZen ? 8192 : 4096;

// To which cache weights are fetched, as __builtin_prefetch counts: 3 is the nearest, 1 the second. Zen 5 is faster with
// the nearest; on Intel's processors fewer requests are on their way to that one than to the second.
constexpr int kFetchedTo = kForZen ? 3 : 1;

// Whole numbers of a byte each. The compiler's own conversion goes by way of single ones.
inline IntVector numbers(const std::uint8_t *from) {
#if LANES == 16
    return (IntVector)_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
#elif LANES == 8
    return (IntVector)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(from)));
#else
    IntVector numbers;
    for (std::size_t lane = 0; lane < kLanes; ++lane) numbers[lane] = static_cast<std::int8_t>(from[lane]);
    return numbers;
#endif
}

template <Datatype D>
inline void read_group(const std::uint8_t *from, Vector (&w)[kGroupVectors]) {
    if constexpr (D == Datatype::fp32) {
#pragma GCC unroll 8
        for (std::size_t v = 0; v < kGroupVectors; ++v) w[v] = load(reinterpret_cast<const float *>(from) + v * kLanes);
    } else if constexpr (D == Datatype::bf16) {
        typedef std::int32_t Unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
#pragma GCC unroll 4
        for (std::size_t v = 0; v < kGroupVectors / 2; ++v) {
            const IntVector pairs = reinterpret_cast<const Unaligned *>(from)[v];
            w[v] = (Vector)(pairs << 16);
            w[kGroupVectors / 2 + v] = (Vector)(pairs & static_cast<std::int32_t>(0xffff0000u));
        }
    } else {
#pragma GCC unroll 8
        for (std::size_t v = 0; v < kGroupVectors; ++v)
            w[v] = __builtin_convertvector(numbers(from + v * kLanes), Vector);
    }
}

// The weights that follow those of a part, of which some are fetched for each group `at` of each of its channels i.
template <Datatype D, std::size_t Count, bool InTurn>
struct NextWeights;

// A line of each row in turn: those of a list. Line after line of one row would make the processor fetch beyond its end,
// where it may be skipped.
template <Datatype D, std::size_t Count>
struct NextWeights<D, Count, true> {
    const std::uint8_t *rows[Count];

    NextWeights(const RowGather &g, std::size_t k) {
        for (std::size_t i = 0; i < Count; ++i) {
            const std::size_t after = k + Count + i < g.count ? k + Count + i : g.count - 1;
            rows[i] = g.weights + (g.ids ? static_cast<std::size_t>(g.ids[after]) : after) * g.row_bytes;
        }
    }

    void fetch(std::size_t at, std::size_t i) const {
        constexpr std::size_t kBytes = kGroup * item_bytes(D);
        if (kBytes >= 64 || at % 2 == 0) __builtin_prefetch(rows[i] + at * kBytes, 0, kFetchedTo);
        if (kBytes > 64) __builtin_prefetch(rows[i] + at * kBytes + 64, 0, kFetchedTo);
    }
};

// From end to end, as they lie, which the processor then helps with: all of them.
template <Datatype D, std::size_t Count>
struct NextWeights<D, Count, false> {
    const std::uint8_t *weights;

    NextWeights(const RowGather &g, std::size_t k)
        : weights(g.weights + (k + 2 * Count <= g.count ? k + Count : k) * g.row_bytes) {}

    void fetch(std::size_t at, std::size_t i) const {
        constexpr std::size_t kBytes = kGroup * item_bytes(D);
        const std::uint8_t *next = weights + (at * Count + i) * kBytes;
        if (kBytes >= 64 || (at * Count + i) % 2 == 0) __builtin_prefetch(next, 0, kFetchedTo);
        if (kBytes > 64) __builtin_prefetch(next + 64, 0, kFetchedTo);
    }
};

// Adds the channels k … k + Count − 1 to the sums.
template <Datatype D, std::size_t Rows, std::size_t Count, bool InTurn>
void gather_part(const RowGather &g, std::size_t first_row, std::size_t k) {
    constexpr std::size_t kBytes = kGroup * item_bytes(D);
    const std::uint8_t *weights[Count];
    for (std::size_t i = 0; i < Count; ++i)
        weights[i] = g.weights + (g.ids ? static_cast<std::size_t>(g.ids[k + i]) : k + i) * g.row_bytes;
    const NextWeights<D, Count, InTurn> next(g, k);
    const float *x[Rows];
    float *sums[Rows];
    for (std::size_t r = 0; r < Rows; ++r) {
        x[r] = g.x[first_row + r] + k;
        sums[r] = g.sums[first_row + r] + g.offset;
    }
    for (std::size_t at = 0; at < g.groups; ++at) {
        Vector sum[Rows][kGroupVectors];
#pragma GCC unroll 4
        for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
            for (std::size_t v = 0; v < kGroupVectors; ++v) sum[r][v] = load(sums[r] + at * kGroup + v * kLanes);
        }
#pragma GCC unroll 16
        for (std::size_t i = 0; i < Count; ++i) next.fetch(at, i);
#pragma GCC unroll 16
        for (std::size_t i = 0; i < Count; ++i) {
            Vector w[kGroupVectors];
            read_group<D>(weights[i] + at * kBytes, w);
#pragma GCC unroll 4
            for (std::size_t r = 0; r < Rows; ++r) {
                const Vector value = broadcast(x[r][i]);
#pragma GCC unroll 8
                for (std::size_t v = 0; v < kGroupVectors; ++v) sum[r][v] += value * w[v];
            }
        }
#pragma GCC unroll 4
        for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
            for (std::size_t v = 0; v < kGroupVectors; ++v) store(sums[r] + at * kGroup + v * kLanes, sum[r][v]);
        }
    }
}

// As many parts of Count as there are channels for, from k on; gives the channel behind them.
template <Datatype D, std::size_t Rows, std::size_t Count>
std::size_t gather_parts(const RowGather &g, std::size_t row, std::size_t k) {
    if (g.ids || !kForZen) {
        for (; k + Count <= g.count; k += Count) gather_part<D, Rows, Count, true>(g, row, k);
    } else {
        for (; k + Count <= g.count; k += Count) gather_part<D, Rows, Count, false>(g, row, k);
    }
    return k;
}

template <Datatype D, std::size_t Rows>
void gather_some(const RowGather &g, std::size_t row) {
    std::size_t k = gather_parts<D, Rows, kSideBySide<D, Rows>>(g, row, 0);
    k = gather_parts<D, Rows, 4>(g, row, k);
    gather_parts<D, Rows, 1>(g, row, k);
}

template <Datatype D>
void gather_rows(const RowGather &g, std::size_t rows) {
    for (std::size_t row = 0; row < rows; ++row) {
        for (std::size_t j = 0; j < g.groups * kGroup; j += kLanes) store(g.sums[row] + g.offset + j, Vector{});
    }
    std::size_t row = 0;
    for (; row + kRowsAtOnce <= rows; row += kRowsAtOnce) gather_some<D, kRowsAtOnce>(g, row);
    if constexpr (kRowsAtOnce == 4) {
        if (rows - row == 3) gather_some<D, 3>(g, row);
        if (rows - row == 2) gather_some<D, 2>(g, row);
    }
    if constexpr (kRowsAtOnce > 1) {
        if (rows - row == 1) gather_some<D, 1>(g, row);
    }
}

template <Datatype D, std::size_t Rows, bool Listed>
void dots_part(const RowDots &d, std::size_t first_row) {
    constexpr std::size_t kBytes = kGroup * item_bytes(D);
    const std::size_t ahead = 1 + kRowAhead / d.row_bytes;
    for (std::size_t j = 0; j < d.count; ++j) {
        const std::size_t next = j + ahead < d.count ? j + ahead : d.count - 1;
        const std::uint8_t *row = d.weights + (Listed ? static_cast<std::size_t>(d.ids[j]) : j) * d.row_bytes;
        const std::uint8_t *fetched = d.weights + (Listed ? static_cast<std::size_t>(d.ids[next]) : next) * d.row_bytes;
        Vector sums[Rows][2 * kGroupVectors] = {};
        std::size_t i = 0;
        for (; i + 2 <= d.groups; i += 2) {
            Vector w[2][kGroupVectors];
            read_group<D>(row + i * kBytes, w[0]);
            read_group<D>(row + (i + 1) * kBytes, w[1]);
            for (std::size_t at = 0; at < 2 * kBytes; at += 64) __builtin_prefetch(fetched + i * kBytes + at, 0, kFetchedTo);
#pragma GCC unroll 4
            for (std::size_t r = 0; r < Rows; ++r) {
                const float *x = d.x[first_row + r] + i * kGroup;
#pragma GCC unroll 16
                for (std::size_t v = 0; v < 2 * kGroupVectors; ++v)
                    sums[r][v] += load(x + v * kLanes) * w[v / kGroupVectors][v % kGroupVectors];
            }
        }
        if (i < d.groups) {
            Vector w[kGroupVectors];
            read_group<D>(row + i * kBytes, w);
            __builtin_prefetch(fetched + i * kBytes, 0, kFetchedTo);
#pragma GCC unroll 4
            for (std::size_t r = 0; r < Rows; ++r) {
                const float *x = d.x[first_row + r] + i * kGroup;
#pragma GCC unroll 8
                for (std::size_t v = 0; v < kGroupVectors; ++v) sums[r][v] += load(x + v * kLanes) * w[v];
            }
        }
#pragma GCC unroll 4
        for (std::size_t r = 0; r < Rows; ++r) {
            Vector sum = {};
#pragma GCC unroll 16
            for (std::size_t v = 0; v < 2 * kGroupVectors; ++v) sum += sums[r][v];
            d.sums[first_row + r][j] = sum_of(sum);
        }
    }
}

template <Datatype D, std::size_t Rows>
void dots_some(const RowDots &d, std::size_t row) {
    if (d.ids) return dots_part<D, Rows, true>(d, row);
    dots_part<D, Rows, false>(d, row);
}

template <Datatype D>
void dot_rows(const RowDots &d, std::size_t rows) {
    std::size_t row = 0;
    for (; row + 4 <= rows; row += 4) dots_some<D, 4>(d, row);
    if (rows - row == 3) dots_some<D, 3>(d, row);
    if (rows - row == 2) dots_some<D, 2>(d, row);
    if (rows - row == 1) dots_some<D, 1>(d, row);
}

void silu_all(float *x, std::size_t count) {
    std::size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(x + i, silu(load(x + i)));
    if (i < count) store_first(x + i, silu(load_first(x + i, count - i)), count - i);
}

typedef std::int32_t UnalignedIntVector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

static_assert(kLanes <= kListSlack);

// The channels from k on, of which those behind the end are 0 and so not active at a threshold above 0.
struct Salient {
    Vector value;
    IntVector active;

    Salient(const RowSaliency &row, std::size_t k) {
        const std::size_t left = row.count - k;
        const auto part = [&](const float *from) {
            return left < kLanes ? load_first(from + k, left) : load(from + k);
        };
        value = part(row.x);
        if (row.means) value -= part(row.means);
        const Vector magnitude = value < 0 ? -value : value;
        active = ~(magnitude * part(row.norms) <= row.threshold);
    }
};

void finish_row(const RowFinish &f) {
    const auto part = [&](std::size_t j, auto read) {
        Vector value = read(f.sums + j);
        if (f.scales) value *= read(f.scales + j);
        if (f.shift) value += read(f.shift + j);
        return f.adds ? value + read(f.y + j) : value;
    };
    std::size_t j = 0;
    for (; j + kLanes <= f.count; j += kLanes) store(f.y + j, part(j, load));
    if (const std::size_t left = f.count - j)
        store_first(f.y + j, part(j, [&](const float *from) { return load_first(from, left); }), left);
}

void join_neurons(const RowNeurons &n) {
    std::size_t i = 0;
#if LANES == 16
    const __m512i order = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (; i < n.count; i += kLanes) {
        const std::size_t left = n.count - i;
        const auto mask = static_cast<__mmask16>(left < kLanes ? (1u << left) - 1 : 0xffff);
        const __m512i ids = n.ids ? _mm512_maskz_loadu_epi32(mask, n.ids + i)
                                  : _mm512_add_epi32(order, _mm512_set1_epi32(static_cast<int>(i)));
        const auto part = [&](const float *from) {
            return n.ids ? _mm512_mask_i32gather_ps(_mm512_setzero_ps(), mask, ids, from, 4)
                         : _mm512_maskz_loadu_ps(mask, from + i);
        };
        __m512 up = _mm512_maskz_loadu_ps(mask, n.up + i);
        if (n.scales) up = _mm512_mul_ps(up, part(n.scales));
        if (n.biases) up = _mm512_add_ps(up, part(n.biases));
        const __m512 gate = part(n.gate);
        __mmask16 active = mask;
        if (n.norms) {
            const __m512 saliency = _mm512_mul_ps(_mm512_abs_ps(gate), part(n.norms));
            active &= _mm512_cmp_ps_mask(saliency, _mm512_set1_ps(n.limit), _CMP_NLE_UQ);
        }
        const __m512 product = _mm512_maskz_mul_ps(n.left ? mask : active, gate, up);
        const auto made = static_cast<__mmask16>(n.left ? mask & ~active : mask);
        if (n.ids) {
            _mm512_mask_i32scatter_ps(n.products, made, ids, product, 4);
        } else {
            _mm512_mask_storeu_ps(n.products + i, made, product);
        }
    }
#endif
    for (; i < n.count; ++i) {
        const std::size_t at = n.ids ? static_cast<std::size_t>(n.ids[i]) : i;
        const float gate = n.gate[at], magnitude = gate < 0 ? -gate : gate;
        const float up = n.up[i] * (n.scales ? n.scales[at] : 1.0f) + (n.biases ? n.biases[at] : 0.0f);
        const bool skipped = n.norms && magnitude * n.norms[at] <= n.limit;
        if (skipped || !n.left) n.products[at] = skipped && !n.left ? 0.0f : gate * up;
    }
}

float greatest_of(const float *values, std::size_t count) {
    Vector found[4];
    for (Vector &part : found) part = broadcast(-__builtin_inff());
    std::size_t j = 0;
    for (; j + 4 * kLanes <= count; j += 4 * kLanes) {
#pragma GCC unroll 4
        for (std::size_t v = 0; v < 4; ++v) {
            const Vector value = load(values + j + v * kLanes);
            found[v] = value > found[v] ? value : found[v];
        }
    }
    float greatest = -__builtin_inff();
    for (const Vector &part : found) {
        const float own = largest_of(part);
        greatest = own > greatest ? own : greatest;
    }
    for (; j < count; ++j) greatest = values[j] > greatest ? values[j] : greatest;
    return greatest;
}

void reach(const float *values, std::size_t count, float limit, std::int32_t *taken) {
    std::size_t j = 0;
    for (; j + kLanes <= count; j += kLanes)
        *reinterpret_cast<UnalignedIntVector *>(taken + j) |= load(values + j) >= limit;
    for (; j < count; ++j) taken[j] |= -(values[j] >= limit);
}

std::size_t choose_active(const RowSaliency &row, std::int32_t *ids, float *values) {
    std::size_t found = 0;
    for (std::size_t k = 0; k < row.count; k += kLanes) {
        const Salient part(row, k);
#if LANES == 16
        const auto mask = _mm512_test_epi32_mask((__m512i)part.active, (__m512i)part.active);
        const __m512i order = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        const __m512i channels = _mm512_add_epi32(order, _mm512_set1_epi32(static_cast<int>(k)));
        _mm512_storeu_si512(ids + found, _mm512_maskz_compress_epi32(mask, channels));
        _mm512_storeu_ps(values + found, _mm512_maskz_compress_ps(mask, (__m512)part.value));
        found += static_cast<std::size_t>(__builtin_popcount(mask));
#else
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
            ids[found] = static_cast<std::int32_t>(k + lane);
            values[found] = part.value[lane];
            found += part.active[lane] != 0;
        }
#endif
    }
    return found;
}

std::size_t mark_active(const RowSaliency &row, std::int32_t *taken) {
    IntVector found = {};
    for (std::size_t k = 0; k < row.count; k += kLanes) {
        const IntVector active = Salient(row, k).active;
        *reinterpret_cast<UnalignedIntVector *>(taken + k) |= active;
        found -= active;
    }
    std::size_t sum = 0;
    for (std::size_t lane = 0; lane < kLanes; ++lane) sum += static_cast<std::size_t>(found[lane]);
    return sum;
}

std::size_t list_taken(const std::int32_t *taken, std::size_t count, std::int32_t *ids) {
    std::size_t found = 0, k = 0;
#if LANES == 16
    __m512i channels = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (; k + kLanes <= count; k += kLanes) {
        const __m512i part = _mm512_loadu_si512(taken + k);
        const __mmask16 mask = _mm512_test_epi32_mask(part, part);
        _mm512_storeu_si512(ids + found, _mm512_maskz_compress_epi32(mask, channels));
        found += static_cast<std::size_t>(__builtin_popcount(mask));
        channels = _mm512_add_epi32(channels, _mm512_set1_epi32(16));
    }
#endif
    for (; k < count; ++k) {
        ids[found] = static_cast<std::int32_t>(k);
        found += taken[k] != 0;
    }
    return found;
}

void pick_taken(const RowSaliency &row, const std::int32_t *taken, float *values) {
    std::size_t found = 0;
    for (std::size_t k = 0; k < row.count; k += kLanes) {
        const Salient part(row, k);
        const Vector value = part.active ? part.value : Vector{};
        const std::size_t left = row.count - k < kLanes ? row.count - k : kLanes;
#if LANES == 16
        const __m512i chosen = _mm512_loadu_si512(taken + k);
        const auto mask = static_cast<__mmask16>(_mm512_test_epi32_mask(chosen, chosen) & ((1u << left) - 1));
        _mm512_storeu_ps(values + found, _mm512_maskz_compress_ps(mask, value));
        found += static_cast<std::size_t>(__builtin_popcount(mask));
#else
        for (std::size_t lane = 0; lane < left; ++lane) {
            values[found] = value[lane];
            found += taken[k + lane] != 0;
        }
#endif
    }
}

void leave_active(const RowSaliency &row, float *values) {
    for (std::size_t k = 0; k < row.count; k += kLanes) {
        const Salient part(row, k);
        const Vector value = part.active ? Vector{} : part.value;
        const std::size_t left = row.count - k;
        if (left < kLanes) {
            store_first(values + k, value, left);
        } else {
            store(values + k, value);
        }
    }
}

constexpr RowSet row_set(const char *name) {
    return {name,
            {gather_rows<Datatype::fp32>, gather_rows<Datatype::bf16>, gather_rows<Datatype::int8>},
            {dot_rows<Datatype::fp32>, dot_rows<Datatype::bf16>, dot_rows<Datatype::int8>},
            silu_all,
            finish_row,
            join_neurons,
            choose_active,
            greatest_of,
            reach,
            mark_active,
            list_taken,
            pick_taken,
            leave_active,
            add_coarse_rows};
}

}  // namespace
}  // namespace sluice
