// What the reduced-precision products have in common, as templates over the vector width: rounding activations, picking
// columns, the epilogue. Each instruction set's source file defines LANES and includes this once, compiled with its own
// flags.
#pragma once

#include "activations.h"
#include "reduced_set.h"
#include "vector.h"

namespace sluice {
namespace {

template <Datatype>
struct Sums;
template <>
struct Sums<Datatype::bf16> {
    typedef float Item;
};
template <>
struct Sums<Datatype::int8> {
    typedef std::int32_t Item;
};
template <Datatype D>
using Sum = typename Sums<D>::Item;

// Rows of the tiles that one pass sums up at most, by 16 columns of as many strips: 4 tiles.
constexpr std::size_t kMostTiles = 4;
constexpr std::size_t kTileItems = kTileLines * kColumns;

inline std::uint16_t to_bf16(float value) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    if (value != value) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The largest magnitude, NaN if there is one: magnitudes are ordered as their bits are.
inline float magnitude(const float *x, std::size_t count) {
    std::uint32_t largest = 0;
    for (std::size_t k = 0; k < count; ++k) {
        std::uint32_t bits;
        __builtin_memcpy(&bits, x + k, 4);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    float value;
    __builtin_memcpy(&value, &largest, 4);
    return value;
}

// int8 activations are x / scale, rounded, within ±127. A row that is not finite has no scale: it becomes NaN.
struct Quantisation {
    float inverse, scale;
};
inline Quantisation quantisation(float magnitude) {
    if (!(magnitude <= __FLT_MAX__)) return {0.0f, __builtin_nanf("")};
    const float inverse = 127.0f / magnitude;
    if (!(inverse <= __FLT_MAX__)) return {0.0f, 0.0f};  // zeros, or too small for a scale
    return {inverse, magnitude / 127.0f};
}

#if LANES == 16

inline __m512 expanded(const float *&x, std::uint32_t active) {
    const __mmask16 mask = static_cast<__mmask16>(active);
    if (mask == 0xffff) {
        const __m512 values = _mm512_loadu_ps(x);
        x += 16;
        return values;
    }
    const unsigned count = static_cast<unsigned>(__builtin_popcount(mask));
    const __m512 values = _mm512_maskz_expand_ps(mask, load_first(x, count));
    x += count;
    return values;
}

// How far before their use activations are fetched.
constexpr std::size_t kFloatsAhead = 1024;

template <Datatype D>
float convert(const float *x, std::size_t count, const Slots *slots, std::size_t steps, std::uint8_t *to,
              std::size_t step_bytes) {
    Quantisation q{1.0f, 1.0f};
    if constexpr (D == Datatype::int8) {
        __m512i largest = _mm512_setzero_si512();
        const __m512i bits = _mm512_set1_epi32(0x7fffffff);
        for (std::size_t k = 0; k < count; k += 16) {
            const __mmask16 rest = static_cast<__mmask16>(count - k < 16 ? (1u << (count - k)) - 1 : 0xffff);
            largest = _mm512_max_epi32(largest, _mm512_and_si512(bits, _mm512_maskz_loadu_epi32(rest, x + k)));
        }
        const std::int32_t most = _mm512_reduce_max_epi32(largest);
        float value;
        __builtin_memcpy(&value, &most, 4);
        q = quantisation(value);
    }
    [[maybe_unused]] const __mmask16 finite = q.scale == q.scale ? 0xffff : 0;
    for (std::size_t s = 0; s < steps; ++s, to += step_bytes) {
        const float *from = x + slots[s].first;
#if defined(__AVX512BF16__)
        if constexpr (D == Datatype::bf16) {
            if (slots[s].active == 0xffffffff) {
                __builtin_prefetch(from + kFloatsAhead);
                __builtin_prefetch(from + kFloatsAhead + 16);
                const __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + 16), _mm512_loadu_ps(from));
                __builtin_memcpy(to, &rounded, sizeof rounded);
                continue;
            }
        }
#endif
        for (std::size_t i = 0; i < tile_inputs(D); i += 16) {
            const __m512 values = expanded(from, static_cast<std::uint16_t>(slots[s].active >> i));
            if constexpr (D == Datatype::int8) {
                const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(values, _mm512_set1_ps(q.inverse)));
                _mm_storeu_si128(reinterpret_cast<__m128i *>(to + i), _mm512_maskz_cvtsepi32_epi8(finite, whole));
            } else {
#if defined(__AVX512BF16__)
                const __m256bh rounded = _mm512_cvtneps_pbh(values);
                __builtin_memcpy(to + 2 * i, &rounded, 32);
#endif
            }
        }
    }
    return q.scale;
}

inline void gather(const Gather &p, const std::int32_t *lines, std::size_t count, Line *to) {
    const __m512i lanes = _mm512_load_si512(p.lanes);
    for (std::size_t i = 0; i < count; ++i) {
        const auto line = static_cast<std::size_t>(lines[i]);
        __m512i picked = _mm512_maskz_permutexvar_epi32(static_cast<__mmask16>(p.masks[0]), lanes,
                                                        _mm512_load_si512(p.strips[0] + line));
        for (std::size_t s = 1; s < p.count; ++s) {
            picked = _mm512_mask_permutexvar_epi32(picked, static_cast<__mmask16>(p.masks[s]), lanes,
                                                   _mm512_load_si512(p.strips[s] + line));
        }
        _mm512_store_si512(to + i, picked);
    }
}

#else

template <Datatype D>
float convert(const float *x, std::size_t count, const Slots *slots, std::size_t steps, std::uint8_t *to,
              std::size_t step_bytes) {
    Quantisation q{1.0f, 1.0f};
    if constexpr (D == Datatype::int8) q = quantisation(magnitude(x, count));
    for (std::size_t s = 0; s < steps; ++s, to += step_bytes) {
        const float *from = x + slots[s].first;
        for (std::size_t i = 0; i < tile_inputs(D); ++i) {
            const float value = slots[s].active >> i & 1 ? *from++ : 0.0f;
            if constexpr (D == Datatype::int8) {
                const float whole = q.scale == q.scale ? __builtin_rintf(value * q.inverse) : 0.0f;
                to[i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(whole));
            } else {
                const std::uint16_t bits = to_bf16(value);
                __builtin_memcpy(to + 2 * i, &bits, 2);
            }
        }
    }
    return q.scale;
}

inline void gather(const Gather &p, const std::int32_t *lines, std::size_t count, Line *to) {
    const Line *strips[kColumns] = {};
    for (std::size_t s = 0; s < p.count; ++s) {
        for (std::size_t j = 0; j < kColumns; ++j) {
            if (p.masks[s] >> j & 1) strips[j] = p.strips[s];
        }
    }
    for (std::size_t i = 0; i < count; ++i) {
        to[i] = Line{};
        for (std::size_t j = 0; j < kColumns; ++j) {
            if (strips[j]) __builtin_memcpy(to[i].bytes + 4 * j, strips[j][lines[i]].bytes + 4 * p.lanes[j], 4);
        }
    }
}

#endif

inline void store_rounded(std::uint8_t *to, Vector y) {
#if defined(__AVX512BF16__)
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)y);
    __builtin_memcpy(to, &rounded, sizeof rounded);
#else
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const std::uint16_t rounded = to_bf16(y[lane]);
        __builtin_memcpy(to + 2 * lane, &rounded, sizeof rounded);
    }
#endif
}

// Positions whose epilogue is done side by side, so that the steps of one fill the time that those of another wait. Beside
// the tile unit there is such work anyway.
#if defined(POSITIONS_TOGETHER)
constexpr std::size_t kPositionsTogether = POSITIONS_TOGETHER;
#else
constexpr std::size_t kPositionsTogether = 1;
#endif

template <std::size_t Count>
struct Positions {
    static constexpr std::size_t count = Count;
};

// Sums of one strip at neighbouring positions, and where their results go.
template <typename Item>
struct Run {
    const Item *sums;
    std::size_t count;
    const float *row_scales;  // null: 1
    float *out;
    const float *residual;  // null: none
    std::size_t stride;     // floats from one position of the result to the next
};

// An activation where all scales and saliencies are 1, and no multiplication is spent on them.
template <typename Act>
struct Plain : Act {};

template <std::size_t Count, typename Act>
inline void apply(Plain<Act>, Vector (&x)[Count]) {
    apply(Act{}, x);
}

template <typename Act>
constexpr bool kIsPlain = false;
template <typename Act>
constexpr bool kIsPlain<Plain<Act>> = true;

// What is left of the epilogue behind the activation.
template <bool Residual>
inline Vector weighted(Vector y, Vector saliency, const float *residual) {
    if constexpr (!Residual) return y * saliency;
    return fused(y, saliency, load(residual));
}

template <bool Residual, typename Act>
inline Vector weighted(const Strip &strip, std::size_t c, Vector y, const float *residual) {
    if constexpr (!kIsPlain<Act>) return weighted<Residual>(y, load(strip.saliency + c), residual);
    if constexpr (!Residual) return y;
    return y + load(residual);
}

// Columns c and following of some neighbouring positions, up to the activation.
template <std::size_t Count, typename Item, typename Act>
inline void finish(const Strip &strip, const Run<Item> &run, std::size_t position, std::size_t c, Act act,
                   Vector (&y)[Count]) {
    typedef Item ItemVector __attribute__((vector_size(LANES * sizeof(float)), may_alias));
#pragma GCC unroll 8
    for (std::size_t i = 0; i < Count; ++i) {
        const Item *sums = run.sums + (position + i) * kColumns + c;
        const Vector sum = __builtin_convertvector(*reinterpret_cast<const ItemVector *>(sums), Vector);
        if constexpr (kIsPlain<Act>) {
            y[i] = sum + load(strip.shift + c);
        } else {
            const float row_scale = run.row_scales ? run.row_scales[position + i] : 1.0f;
            y[i] = sum * (load(strip.scale + c) * row_scale) + load(strip.shift + c);
        }
    }
    apply(act, y);
}

// Calls finish(number, position) for all positions of a run, as many at a time as are finished side by side.
template <typename Item, typename Function>
inline void each_position(const Run<Item> &run, Function finish) {
    std::size_t i = 0;
    for (; i + kPositionsTogether <= run.count; i += kPositionsTogether) finish(Positions<kPositionsTogether>{}, i);
    if constexpr (kPositionsTogether > 1) {
        for (; i < run.count; ++i) finish(Positions<1>{}, i);
    }
}

// The epilogue where all columns are stored, which is nearly always: short, since it runs beside the tile unit.
template <bool Residual, typename Item, typename Act>
inline void finish_whole(const Strip &strip, const Run<Item> &run, Act act) {
    each_position(run, [&](auto some, std::size_t position) {
        float *out = run.out + position * run.stride;
        const float *residual = Residual ? run.residual + position * run.stride : nullptr;
#pragma GCC unroll 4
        for (std::size_t c = 0; c < kColumns; c += kLanes) {
            Vector y[some.count];
            finish(strip, run, position, c, act, y);
#pragma GCC unroll 8
            for (std::size_t i = 0; i < some.count; ++i)
                store(out + i * run.stride + c,
                      weighted<Residual, Act>(strip, c, y[i], residual + i * run.stride + c));
        }
    });
}

// The same where some columns are stored, side by side.
template <bool Residual, typename Item, typename Act>
void finish_part(const Strip &strip, const Run<Item> &run, Act act) {
    for (std::size_t i = 0; i < run.count; ++i) {
        float *out = run.out + i * run.stride;
        alignas(64) float whole[kColumns], added[kColumns] = {};
        if constexpr (Residual) {
            const float *residual = run.residual + i * run.stride;
            for (std::size_t j = 0; j < kColumns; ++j) {
                if (strip.active >> j & 1) added[j] = *residual++;
            }
        }
        for (std::size_t c = 0; c < kColumns; c += kLanes) {
            Vector y[1];
            finish(strip, run, i, c, act, y);
            store(whole + c, weighted<Residual, Act>(strip, c, y[0], added + c));
        }
#if LANES == 16
        // In a register and not on the way to memory, which takes AMD's processors a hundred cycles.
        const __m512 stored = _mm512_maskz_compress_ps(static_cast<__mmask16>(strip.active), _mm512_load_ps(whole));
        store_first(out, stored, static_cast<std::size_t>(__builtin_popcount(strip.active)));
#else
        for (std::size_t j = 0; j < kColumns; ++j) {
            if (strip.active >> j & 1) *out++ = whole[j];
        }
#endif
    }
}

// 16 columns of each position become half a line of a tile of activations.
template <typename Item, typename Act>
inline void finish_rounded(const Strip &strip, const Run<Item> &run, std::uint8_t *to, Act act) {
    each_position(run, [&](auto some, std::size_t position) {
        for (std::size_t c = 0; c < kColumns; c += kLanes) {
            Vector y[some.count];
            finish(strip, run, position, c, act, y);
#pragma GCC unroll 8
            for (std::size_t i = 0; i < some.count; ++i)
                store_rounded(to + (position + i) * sizeof(Line) + 2 * c,
                              weighted<false, Act>(strip, c, y[i], nullptr));
        }
    });
}

// The sums of some strips by some tiles of positions, [strip][tile][row][16], and the row whose epilogue is next.
template <typename Item>
struct Block {
    const Strip *strips = nullptr;
    std::size_t strip_count = 0, tiles = 0;
    const Item *sums = nullptr;
    std::size_t rows_left = 0;
    std::size_t row = 0, tile = 0, tile_row = 0, position = 0, result = 0;
    std::size_t at = 0;  // within a line of `pitch` positions

    Block() = default;
    Block(const Job &job, const Strip *strips_, std::size_t strip_count_, std::size_t first_tile, std::size_t tiles_,
          const Item *sums_)
        : strips(strips_), strip_count(strip_count_), tiles(tiles_), sums(sums_), tile(first_tile),
          position(first_tile * job.tile_rows) {
        const std::size_t rows = tiles * job.tile_rows, left = job.positions - position;
        rows_left = rows < left ? rows : left;
        at = position % job.pitch;
        result = position / job.pitch * job.width + (at < job.width ? at : job.width);
    }

    // How many of the next `most` rows are neighbours in the sums and in the result, or are both not stored.
    std::size_t run(const Job &job, std::size_t most) const {
        const std::size_t in_tile = job.tile_rows - tile_row, in_line = (at < job.width ? job.width : job.pitch) - at;
        const std::size_t both = in_tile < in_line ? in_tile : in_line;
        return both < most ? both : most;
    }

    void advance(const Job &job, std::size_t count) {
        if (at < job.width) result += count;
        at += count;
        if (at == job.pitch) at = 0;
        position += count;
        row += count;
        tile_row += count;
        if (tile_row == job.tile_rows) {
            tile_row = 0;
            row += kTileLines - job.tile_rows;
            ++tile;
        }
    }
};

template <typename Item>
inline std::uint8_t *rounded_place(const Job &job, const Block<Item> &block, std::size_t column) {
    constexpr std::size_t kInputs = tile_inputs(Datatype::bf16);
    return job.rounded + block.tile * job.rounded_tile_bytes +
           (column / kInputs * kTileLines + block.tile_row) * sizeof(Line) + 2 * (column % kInputs);
}

template <typename Item, typename Act>
void finish_rows(const Job &job, Block<Item> &block, std::size_t count, Act act) {
    while (count > 0) {
        const std::size_t together = block.run(job, count);
        if (block.at < job.width) {
            const Item *sums = block.sums + block.row * kColumns;
            const std::size_t place = block.result * job.out_stride;
            const float *row_scales = job.row_scales ? job.row_scales + block.position : nullptr;
            for (std::size_t s = 0; s < block.strip_count; ++s, sums += block.tiles * kTileItems) {
                const Strip &strip = block.strips[s];
                const std::size_t at = place + strip.column;
                const Run<Item> run{sums, together, row_scales, job.rounded ? nullptr : job.out + at,
                                    job.residual ? job.residual + at : nullptr, job.out_stride};
                if (job.rounded) finish_rounded(strip, run, rounded_place(job, block, strip.column), act);
                else if (strip.active == 0xffff && run.residual) finish_whole<true>(strip, run, act);
                else if (strip.active == 0xffff) finish_whole<false>(strip, run, act);
                else if (run.residual) finish_part<true>(strip, run, act);
                else finish_part<false>(strip, run, act);
            }
        }
        block.advance(job, together);
        count -= together;
    }
}

// The epilogue of the next rows of a block, of no more than are left.
template <typename Item>
void finish_rows(const Job &job, Block<Item> &block, std::size_t count) {
    if (count > block.rows_left) count = block.rows_left;
    if (count == 0) return;
    block.rows_left -= count;
    with_activation(job.activation, [&](auto act) { finish_rows(job, block, count, act); });
}

// Calls sum(first, count, tile, out) for up to `most` strips and each tile of positions, and its epilogue.
template <typename Item, typename Function>
void each_block(const Job &job, std::size_t most, Function sum) {
    alignas(64) Item sums[kMostTiles * kTileItems];
    for (std::size_t s = 0; s < job.strip_count; s += most) {
        const std::size_t count = job.strip_count - s < most ? job.strip_count - s : most;
        for (std::size_t tile = 0; tile < job.tiles; ++tile) {
            sum(s, count, tile, sums);
            Block<Item> block(job, job.strips + s, count, tile, 1, sums);
            finish_rows(job, block, job.tile_rows);
        }
    }
}

[[maybe_unused]] void enter_nothing(std::size_t) {}
[[maybe_unused]] void leave_nothing() {}

}  // namespace
}  // namespace sluice
