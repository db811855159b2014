// Products by the AVX-512 instructions that multiply a line by a group of a position's inputs: VDPBF16PS and VPDPBUSD.
// A tile of registers is up to 6 positions × 4 strips, 8 × 3, 12 × 2 or 16 × 1.
#pragma once

#define LANES 16
#include "reduced_loops.h"

namespace sluice {
namespace {

constexpr std::size_t kMostStrips = 4, kMostRows[kMostStrips] = {16, 12, 8, 6};

#if defined(__AVX512BF16__)
struct Bf16 {
    typedef __m512 Sums;
    static constexpr Datatype datatype = Datatype::bf16;
    static Sums zero(const std::uint8_t *, const Job &) { return _mm512_setzero_ps(); }
    static __m512i weights(const Line &line) { return _mm512_load_si512(&line); }
    static Sums add(Sums sums, __m512i group, __m512i weights) {
        return _mm512_dpbf16_ps(sums, (__m512bh)group, (__m512bh)weights);
    }
    static void store(float *to, Sums sums) { _mm512_store_ps(to, sums); }
};
#endif

#if defined(__AVX512VNNI__)
// The instruction multiplies unsigned by signed numbers: weights are read with 128 added, which adds 128 times the sum
// of the position's values to every column.
struct Int8 {
    typedef __m512i Sums;
    static constexpr Datatype datatype = Datatype::int8;
    static Sums zero(const std::uint8_t *position, const Job &job) {
        __m512i sums = _mm512_setzero_si512();
        const __m512i all = _mm512_set1_epi8(-128);
        for (std::size_t s = 0; s < job.steps; ++s)
            sums = _mm512_dpbusd_epi32(sums, all, _mm512_loadu_si512(position + job.activation_steps[s]));
        return _mm512_set1_epi32(-_mm512_reduce_add_epi32(sums));
    }
    static __m512i weights(const Line &line) {
        return _mm512_xor_si512(_mm512_load_si512(&line), _mm512_set1_epi8(-128));
    }
    static Sums add(Sums sums, __m512i group, __m512i weights) { return _mm512_dpbusd_epi32(sums, weights, group); }
    static void store(std::int32_t *to, Sums sums) { _mm512_store_si512(to, sums); }
};
#endif

// Lines that the next strips will read, fetched meanwhile: without it those of a product of 16 rows come from memory at
// half of the speed at which they are multiplied. Into the nearest cache: see InstructionSet::fetches_near.
struct Ahead {
    const Line *strips[kMostStrips];  // null: none
    std::size_t share, shares;        // of all calls that read the same strips
};

template <typename Kind, std::size_t Rows, std::size_t Strips>
void sum_up(const Job &job, const Strip *strips, const std::uint8_t *activations, const Ahead &ahead,
            Sum<Kind::datatype> *out) {
    std::size_t wait = ahead.strips[0] ? ahead.shares : SIZE_MAX;
    std::size_t fetched = ahead.share * job.steps * kTileLines / ahead.shares;
    typename Kind::Sums sums[Rows][Strips];
#pragma GCC unroll 16
    for (std::size_t r = 0; r < Rows; ++r) {
        const typename Kind::Sums zero = Kind::zero(activations + r * job.position_bytes, job);
#pragma GCC unroll 4
        for (std::size_t s = 0; s < Strips; ++s) sums[r][s] = zero;
    }
    for (std::size_t step = 0; step < job.steps; ++step) {
        const std::uint8_t *x = activations + job.activation_steps[step];
        for (std::size_t line = 0; line < kTileLines; ++line, x += 4) {
            if (--wait == 0) {
                wait = ahead.shares;
                const std::size_t at = job.weight_steps[fetched / kTileLines] + fetched % kTileLines;
                ++fetched;
#pragma GCC unroll 4
                for (std::size_t s = 0; s < Strips; ++s) __builtin_prefetch(ahead.strips[s] + at);
            }
            __m512i weights[Strips];
#pragma GCC unroll 4
            for (std::size_t s = 0; s < Strips; ++s)
                weights[s] = Kind::weights(strips[s].weights[job.weight_steps[step] + line]);
#pragma GCC unroll 16
            for (std::size_t r = 0; r < Rows; ++r) {
                std::int32_t group;
                __builtin_memcpy(&group, x + r * job.position_bytes, 4);
#pragma GCC unroll 4
                for (std::size_t s = 0; s < Strips; ++s)
                    sums[r][s] = Kind::add(sums[r][s], _mm512_set1_epi32(group), weights[s]);
            }
        }
    }
#pragma GCC unroll 16
    for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
        for (std::size_t s = 0; s < Strips; ++s) Kind::store(out + s * kTileItems + r * kColumns, sums[r][s]);
    }
}

template <typename Kind, std::size_t Rows, std::size_t Strips>
void sum_up(const Job &job, const Strip *strips, std::size_t rows, std::size_t count, const std::uint8_t *activations,
            const Ahead &ahead, Sum<Kind::datatype> *out) {
    if (count != Strips) {
        if constexpr (Strips < kMostStrips)
            sum_up<Kind, Rows, Strips + 1>(job, strips, rows, count, activations, ahead, out);
    } else if (rows != Rows) {
        if constexpr (Rows < kMostRows[Strips - 1])
            sum_up<Kind, Rows + 1, Strips>(job, strips, rows, count, activations, ahead, out);
    } else {
        sum_up<Kind, Rows, Strips>(job, strips, activations, ahead, out);
    }
}

// What is read after `count` strips from the first on.
inline void find_ahead(const Job &job, std::size_t first, std::size_t count, Ahead &ahead) {
    for (std::size_t s = 0; s < count; ++s) {
        const std::size_t next = first + count + s, last = job.strip_count - 1;
        const Line *strip = next <= last ? job.strips[next].weights : job.strips[last].weights + (next - last) * job.strip_lines;
        ahead.strips[s] = job.strip_lines ? strip : nullptr;
    }
}

// The lines that a tile's results go to, to be there when they are stored: rows of a result lie far apart.
inline void fetch_result(const Job &job, std::size_t first, std::size_t count, std::size_t tile) {
    if (job.rounded || job.pitch != job.width) return;
    const std::size_t begin = tile * job.tile_rows, left = job.positions - begin;
    for (std::size_t row = 0; row < (job.tile_rows < left ? job.tile_rows : left); ++row) {
        const float *out = job.out + (begin + row) * job.out_stride + job.strips[first].column;
        for (std::size_t s = 0; s < count; ++s) __builtin_prefetch(out + s * kColumns, 1);
    }
}

template <typename Kind>
void multiply(const Job &job) {
    // 16 positions are twice 8 by three strips, and not 5, 5 and 6 by four.
    const std::size_t together = job.tile_rows > 2 * kMostRows[kMostStrips - 1] ? 3 : kMostStrips;
    each_block<Sum<Kind::datatype>>(
        job, together,
        [&](std::size_t first, std::size_t count, std::size_t tile, Sum<Kind::datatype> *sums) {
            const std::uint8_t *activations = job.activations + tile * job.tile_bytes;
            Ahead ahead;
            find_ahead(job, first, count, ahead);
            const std::size_t parts = (job.tile_rows + kMostRows[count - 1] - 1) / kMostRows[count - 1];
            ahead.shares = job.tiles * parts;
            fetch_result(job, first, count, tile);
            for (std::size_t i = 0; i < parts; ++i) {
                const std::size_t row = i * job.tile_rows / parts, rows = (i + 1) * job.tile_rows / parts - row;
                ahead.share = tile * parts + i;
                sum_up<Kind, 1, 1>(job, job.strips + first, rows, count, activations + row * job.position_bytes, ahead,
                                   sums + row * kColumns);
            }
        });
}

template <typename Kind>
std::size_t accumulate(std::size_t rounds) {
    constexpr std::size_t kSums = 24;
    typename Kind::Sums sums[kSums] = {};
    // A compiler would see that they are all the same. Each loop is unrolled, or they would have to lie in memory.
#pragma GCC unroll 24
    for (std::size_t i = 0; i < kSums; ++i) asm volatile("" : "+v"(sums[i]));
    const __m512i group = _mm512_set1_epi8(1), line = _mm512_set1_epi8(2);
    for (std::size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
        for (std::size_t i = 0; i < kSums; ++i) sums[i] = Kind::add(sums[i], group, line);
    }
#pragma GCC unroll 24
    for (std::size_t i = 0; i < kSums; ++i) asm volatile("" : : "v"(sums[i]));
    return rounds * kSums * kColumns * group_size(Kind::datatype);
}

template <typename Kind>
constexpr ReducedSet avx512_set() {
    return {"avx512", kMostStrips, 3, enter_nothing, leave_nothing, convert<Kind::datatype>, gather, multiply<Kind>,
            accumulate<Kind>};
}

}  // namespace
}  // namespace sluice
