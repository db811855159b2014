// Products by the AVX-512 instructions that multiply a line by a group of a position's inputs: VDPBF16PS and VPDPBUSD.
// A tile of registers is up to 6 positions × 4 strips, 8 × 3, 12 × 2 or 16 × 1.
#pragma once

#define LANES 16
#define POSITIONS_TOGETHER 4
#include "reduced_loops.h"

namespace sluice {
namespace {

constexpr std::size_t kMostStrips = 4, kMostRows[kMostStrips] = {16, 12, 8, 6};

#if defined(__AVX512BF16__)
struct Bf16 {
    typedef __m512 Sums;
    static constexpr Datatype datatype = Datatype::bf16;
    static constexpr bool finishes_registers = true;
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
    // With the scales of rows besides, the compiler keeps the sums in memory, where they take twice the time.
    static constexpr bool finishes_registers = false;
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

// Some rows by some strips, and where their results go: to `out` through the epilogue or, where that is null, to `sums`.
template <typename Kind>
struct Part {
    const Strip *strips;
    const std::uint8_t *activations;
    Ahead ahead;
    const float *residual;    // to be fetched, and added to `out`; null: none
    float *out;
    float floor, ceiling;
    Sum<Kind::datatype> *sums;
};

// The epilogue of sums that lie in registers.
template <typename Kind, std::size_t Rows, std::size_t Strips, bool Residual>
inline void finish_registers(const Part<Kind> &part, std::size_t stride, const typename Kind::Sums (&sums)[Rows][Strips]) {
    const Vector floor = broadcast(part.floor), ceiling = broadcast(part.ceiling);
#pragma GCC unroll 4
    for (std::size_t s = 0; s < Strips; ++s) {
        const Strip &strip = part.strips[s];
        const Vector scale = load(strip.scale), shift = load(strip.shift), saliency = load(strip.saliency);
        float *out = part.out + strip.column - part.strips[0].column;
        const float *residual = Residual ? part.residual + strip.column - part.strips[0].column : nullptr;
#pragma GCC unroll 16
        for (std::size_t r = 0; r < Rows; ++r) {
            const Vector y = at_most(at_least((Vector)sums[r][s] * scale + shift, floor), ceiling);
            store(out + r * stride, weighted<Residual>(y, saliency, residual + r * stride));
        }
    }
}

// The same where nothing but the shift and the residual is added.
template <typename Kind, std::size_t Rows, std::size_t Strips, bool Residual>
inline void shift_registers(const Part<Kind> &part, std::size_t stride, const typename Kind::Sums (&sums)[Rows][Strips]) {
#pragma GCC unroll 4
    for (std::size_t s = 0; s < Strips; ++s) {
        const Strip &strip = part.strips[s];
        const Vector shift = load(strip.shift);
        float *out = part.out + strip.column - part.strips[0].column;
        const float *residual = Residual ? part.residual + strip.column - part.strips[0].column : nullptr;
#pragma GCC unroll 16
        for (std::size_t r = 0; r < Rows; ++r) {
            const Vector y = (Vector)sums[r][s] + shift;
            store(out + r * stride, Residual ? y + load(residual + r * stride) : y);
        }
    }
}

template <typename Kind, std::size_t Rows, std::size_t Strips>
void sum_up(const Job &job, const Part<Kind> &part) {
    std::size_t wait = part.ahead.strips[0] ? part.ahead.shares : SIZE_MAX;
    std::size_t fetched = part.ahead.share * job.steps * kTileLines / part.ahead.shares;
    typename Kind::Sums sums[Rows][Strips];
#pragma GCC unroll 16
    for (std::size_t r = 0; r < Rows; ++r) {
        const typename Kind::Sums zero = Kind::zero(part.activations + r * job.position_bytes, job);
#pragma GCC unroll 4
        for (std::size_t s = 0; s < Strips; ++s) sums[r][s] = zero;
    }
    for (std::size_t step = 0; step < job.steps; ++step) {
        const std::uint8_t *x = part.activations + job.activation_steps[step];
        if (part.residual && step < Rows) {  // its rows lie too far apart for the processor to see what comes next
#pragma GCC unroll 4
            for (std::size_t s = 0; s < Strips; ++s)
                __builtin_prefetch(part.residual + step * job.out_stride + s * kColumns);
        }
        const Line *from[Strips];
#pragma GCC unroll 4
        for (std::size_t s = 0; s < Strips; ++s) from[s] = part.strips[s].weights + job.weight_steps[step];
        for (std::size_t line = 0; line < kTileLines; ++line, x += 4) {
            if (--wait == 0) {
                wait = part.ahead.shares;
                const std::size_t at = job.weight_steps[fetched / kTileLines] + fetched % kTileLines;
                ++fetched;
#pragma GCC unroll 4
                for (std::size_t s = 0; s < Strips; ++s) __builtin_prefetch(part.ahead.strips[s] + at);
            }
            __m512i weights[Strips];
#pragma GCC unroll 4
            for (std::size_t s = 0; s < Strips; ++s)
                weights[s] = Kind::weights(from[s][line]);
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
    if constexpr (Kind::finishes_registers) {
        if (part.out && job.plain && job.activation == Activation::none) {
            if (part.residual) return shift_registers<Kind, Rows, Strips, true>(part, job.out_stride, sums);
            return shift_registers<Kind, Rows, Strips, false>(part, job.out_stride, sums);
        }
        if (part.out && part.residual) return finish_registers<Kind, Rows, Strips, true>(part, job.out_stride, sums);
        if (part.out) return finish_registers<Kind, Rows, Strips, false>(part, job.out_stride, sums);
    }
#pragma GCC unroll 16
    for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
        for (std::size_t s = 0; s < Strips; ++s) Kind::store(part.sums + s * kTileItems + r * kColumns, sums[r][s]);
    }
}

template <typename Kind>
using SumUp = void (*)(const Job &, const Part<Kind> &);

template <typename Kind, std::size_t Rows = 1, std::size_t Strips = 1>
SumUp<Kind> sum_up_of(std::size_t rows, std::size_t strips) {
    if (strips != Strips) {
        if constexpr (Strips < kMostStrips) return sum_up_of<Kind, Rows, Strips + 1>(rows, strips);
    } else if (rows != Rows) {
        if constexpr (Rows < kMostRows[Strips - 1]) return sum_up_of<Kind, Rows + 1, Strips>(rows, strips);
    }
    return sum_up<Kind, Rows, Strips>;
}

// What is read after `count` strips from the first on.
inline void find_ahead(const Job &job, std::size_t first, std::size_t count, Ahead &ahead) {
    for (std::size_t s = 0; s < count; ++s) {
        const std::size_t next = first + count + s, last = job.strip_count - 1;
        const Line *strip = next <= last ? job.strips[next].weights : job.strips[last].weights + (next - last) * job.strip_lines;
        ahead.strips[s] = job.strip_lines ? strip : nullptr;
    }
}

template <typename Kind>
struct Multiplying {
    const Job &job;
    float floor = -__builtin_inff(), ceiling = __builtin_inff();

    // Whether the epilogue of some strips is done in registers: nearly always, but for activations that take long.
    bool in_registers(const Strip *strips, std::size_t count) const {
        if (!Kind::finishes_registers || job.rounded || job.pitch != job.width) return false;
        for (std::size_t s = 0; s < count; ++s) {
            if (strips[s].active != 0xffff || strips[s].column != strips[0].column + s * kColumns) return false;
        }
        return job.activation != Activation::gelu && job.activation != Activation::silu;
    }

    // By `count` strips from the first on.
    void run(std::size_t first, std::size_t count) const {
        alignas(64) Sum<Kind::datatype> sums[kMostStrips * kTileItems];
        Part<Kind> part{};
        part.strips = job.strips + first;
        part.floor = floor;
        part.ceiling = ceiling;
        find_ahead(job, first, count, part.ahead);
        const bool direct = in_registers(part.strips, count);
        const std::size_t most = kMostRows[count - 1], parts = (job.tile_rows + most - 1) / most;
        part.ahead.shares = job.tiles * parts;
        for (std::size_t tile = 0; tile < job.tiles; ++tile) {
            const std::size_t begin = tile * job.tile_rows, left = job.positions - begin,
                              rows = left < job.tile_rows ? left : job.tile_rows;
            for (std::size_t i = 0; i < parts; ++i, ++part.ahead.share) {
                const std::size_t row = i * rows / parts, end = (i + 1) * rows / parts;
                if (row == end) continue;
                part.activations = job.activations + tile * job.tile_bytes + row * job.position_bytes;
                part.sums = sums + row * kColumns;
                const std::size_t place = (begin + row) * job.out_stride + part.strips[0].column;
                if (direct) part.out = job.out + place;
                if (job.residual && job.pitch == job.width) part.residual = job.residual + place;
                sum_up_of<Kind>(end - row, count)(job, part);
            }
            if (direct) continue;
            Block<Sum<Kind::datatype>> block(job, part.strips, count, tile, 1, sums);
            if (job.plain && job.activation == Activation::gelu) {
                finish_rows(job, block, block.rows_left, Plain<Gelu>{});
            } else {
                finish_rows(job, block, job.tile_rows);
            }
        }
    }
};

template <typename Kind>
void multiply(const Job &job) {
    Multiplying<Kind> multiplying{job};
    if (job.activation == Activation::relu || job.activation == Activation::relu6) multiplying.floor = 0;
    if (job.activation == Activation::relu6) multiplying.ceiling = 6;
    // 16 positions are twice 8 by three strips, and not 5, 5 and 6 by four.
    const std::size_t together = job.tile_rows > 2 * kMostRows[kMostStrips - 1] ? 3 : kMostStrips;
    for (std::size_t first = 0; first < job.strip_count; first += together) {
        const std::size_t left = job.strip_count - first;
        multiplying.run(first, left < together ? left : together);
    }
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
    return {"avx512", kMostStrips, 3, 8, enter_nothing, leave_nothing, convert<Kind::datatype>, gather, multiply<Kind>,
            accumulate<Kind>};
}

}  // namespace
}  // namespace sluice
