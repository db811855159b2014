// The loops of rows_set.h as templates over the vector width; see loops.h.
#pragma once

#include "rows_set.h"
#include "vector.h"

#if LANES == 8
#include <immintrin.h>
#endif

namespace sluice {
namespace {

constexpr std::size_t kGroupVectors = kGroup / kLanes;

// Sums that fit the registers, in vectors.
constexpr std::size_t kMostSums = kLanes == 16 ? 24 : 8;

// How many bytes of weights are fetched ahead.
constexpr std::size_t kRowAhead = 4096;

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

template <Datatype D, std::size_t Rows, std::size_t Groups>
void gather_part(const RowGather &g, std::size_t first_row, std::size_t first_group) {
    constexpr std::size_t kVectors = Groups * kGroupVectors, kBytes = kGroup * item_bytes(D);
    Vector sums[Rows][kVectors] = {};
    const float *x[Rows];
#pragma GCC unroll 4
    for (std::size_t r = 0; r < Rows; ++r) x[r] = g.x[first_row + r];
    const std::uint8_t *weights = g.weights + first_group * kBytes;
    const std::size_t ahead = 1 + kRowAhead / g.row_bytes;
    for (std::size_t k = 0; k < g.count; ++k) {
        const std::size_t next = k + ahead < g.count ? k + ahead : g.count - 1;
        const std::uint8_t *row = weights + (g.ids ? static_cast<std::size_t>(g.ids[k]) : k) * g.row_bytes;
        const std::uint8_t *fetched = weights + (g.ids ? static_cast<std::size_t>(g.ids[next]) : next) * g.row_bytes;
#pragma GCC unroll 24
        for (std::size_t at = 0; at < Groups * kBytes; at += 64) __builtin_prefetch(fetched + at, 0, 1);
#pragma GCC unroll 10
        for (std::size_t i = 0; i < Groups; ++i) {
            Vector w[kGroupVectors];
            read_group<D>(row + i * kBytes, w);
#pragma GCC unroll 4
            for (std::size_t r = 0; r < Rows; ++r) {
                const Vector value = broadcast(x[r][k]);
#pragma GCC unroll 8
                for (std::size_t v = 0; v < kGroupVectors; ++v) sums[r][i * kGroupVectors + v] += value * w[v];
            }
        }
    }
#pragma GCC unroll 4
    for (std::size_t r = 0; r < Rows; ++r) {
        float *to = g.sums[first_row + r] + g.offset + first_group * kGroup;
#pragma GCC unroll 24
        for (std::size_t v = 0; v < kVectors; ++v) store(to + v * kLanes, sums[r][v]);
    }
}

template <Datatype D, std::size_t Rows, std::size_t Groups>
void gather_groups(const RowGather &g, std::size_t first_row) {
    std::size_t group = 0;
    for (; group + Groups <= g.groups; group += Groups) gather_part<D, Rows, Groups>(g, first_row, group);
    if constexpr (Groups > 1) {
        if (group < g.groups) {
            RowGather rest = g;
            rest.weights += group * kGroup * item_bytes(D);
            rest.offset += group * kGroup;
            rest.groups -= group;
            gather_groups<D, Rows, Groups - 1>(rest, first_row);
        }
    }
}

template <std::size_t Rows>
constexpr std::size_t most_groups() {
    constexpr std::size_t most = kMostSums / (Rows * kGroupVectors);
    return most == 0 ? 1 : most > 10 ? 10 : most;
}

template <Datatype D>
void gather_rows(const RowGather &g, std::size_t rows) {
    std::size_t row = 0;
    if (g.count == 0) {
        for (; row < rows; ++row) {
            for (std::size_t j = 0; j < g.groups * kGroup; ++j) g.sums[row][g.offset + j] = 0;
        }
        return;
    }
    for (; row + 4 <= rows; row += 4) gather_groups<D, 4, most_groups<4>()>(g, row);
    if (rows - row == 3) gather_groups<D, 3, most_groups<3>()>(g, row);
    if (rows - row == 2) gather_groups<D, 2, most_groups<2>()>(g, row);
    if (rows - row == 1) gather_groups<D, 1, most_groups<1>()>(g, row);
}

template <Datatype D, std::size_t Rows>
void dots_part(const RowDots &d, std::size_t first_row) {
    constexpr std::size_t kBytes = kGroup * item_bytes(D);
    const std::size_t ahead = 1 + kRowAhead / d.row_bytes;
    for (std::size_t j = 0; j < d.count; ++j) {
        const std::size_t next = j + ahead < d.count ? j + ahead : d.count - 1;
        const std::uint8_t *row = d.weights + (d.ids ? static_cast<std::size_t>(d.ids[j]) : j) * d.row_bytes;
        const std::uint8_t *fetched = d.weights + (d.ids ? static_cast<std::size_t>(d.ids[next]) : next) * d.row_bytes;
        Vector sums[Rows][2 * kGroupVectors] = {};
        std::size_t i = 0;
        for (; i + 2 <= d.groups; i += 2) {
            Vector w[2][kGroupVectors];
            read_group<D>(row + i * kBytes, w[0]);
            read_group<D>(row + (i + 1) * kBytes, w[1]);
            for (std::size_t at = 0; at < 2 * kBytes; at += 64) __builtin_prefetch(fetched + i * kBytes + at, 0, 1);
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
            __builtin_prefetch(fetched + i * kBytes, 0, 1);
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

template <Datatype D>
void dot_rows(const RowDots &d, std::size_t rows) {
    std::size_t row = 0;
    for (; row + 4 <= rows; row += 4) dots_part<D, 4>(d, row);
    if (rows - row == 3) dots_part<D, 3>(d, row);
    if (rows - row == 2) dots_part<D, 2>(d, row);
    if (rows - row == 1) dots_part<D, 1>(d, row);
}

void silu_all(float *x, std::size_t count) {
    std::size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(x + i, silu(load(x + i)));
    if (i < count) store_first(x + i, silu(load_first(x + i, count - i)), count - i);
}

constexpr RowSet row_set(const char *name) {
    return {name,
            {gather_rows<Datatype::fp32>, gather_rows<Datatype::bf16>, gather_rows<Datatype::int8>},
            {dot_rows<Datatype::fp32>, dot_rows<Datatype::bf16>, dot_rows<Datatype::int8>},
            silu_all};
}

}  // namespace
}  // namespace sluice
