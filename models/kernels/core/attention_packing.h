// What attention multiplies in bf16, rounded to it or in parts: queries as activations, keys and values as weights. A tile
// of each part follows that of the part before.
#pragma once

#include "amx_parts.h"
#include "attention.h"
#include "transposed_lines.h"

namespace sluice {
namespace {

constexpr std::size_t kTileBytes = kTileLines * sizeof(Line);
constexpr std::size_t kStep = tile_inputs(Datatype::bf16);

// 32 floats of a row, of which `count` are there, times a factor.
template <std::size_t Count>
inline Halves<Count> row_halves(const float *row, std::size_t count, float factor) {
    const __m512 low = _mm512_maskz_loadu_ps(first_lanes(count), row);
    const __m512 high = count > 16 ? _mm512_maskz_loadu_ps(first_lanes(count - 16), row + 16) : _mm512_setzero_ps();
    return side_by_side<Count>(low * factor, high * factor);
}

// Rows, times a factor, become a tile of activations for each 32 of their columns, [step][part][16][32].
template <std::size_t Count>
void pack_queries(const float *rows, std::size_t stride, std::size_t count, std::size_t depth, float factor,
                  std::uint8_t *to) {
    for (std::size_t k = 0; k < depth; k += kStep, to += Count * kTileBytes) {
        for (std::size_t i = 0; i < kTileLines; ++i) {
            Halves<Count> row = {};
            if (i < count) row = row_halves<Count>(rows + i * stride + k, depth - k, factor);
#pragma GCC unroll 3
            for (std::size_t part = 0; part < Count; ++part)
                _mm512_store_si512(to + part * kTileBytes + i * sizeof(Line), row.part[part]);
        }
    }
}

// The keys as weights, [tile of 16 keys][step][part][line].
template <std::size_t Count, std::size_t Ahead = kRowsAhead>
void pack_keys(const Heads &keys, const float *rows, std::size_t depth, std::size_t tiles, std::uint8_t *to) {
    for (std::size_t tile = 0; tile < tiles; ++tile) {
        for (std::size_t key = tile * kTileLines + Ahead; key < (tile + 1) * kTileLines + Ahead && key < keys.rows; ++key)
            fetch(rows + key * keys.stride, depth);
        for (std::size_t k = 0; k < depth; k += kStep, to += Count * kTileBytes) {
            __m512i pairs[Count][16];
#pragma GCC unroll 16
            for (std::size_t i = 0; i < 16; ++i) {
                const std::size_t key = tile * kTileLines + i;
                Halves<Count> row = {};
                if (key < keys.rows) row = row_halves<Count>(rows + key * keys.stride + k, depth - k, 1.0f);
#pragma GCC unroll 3
                for (std::size_t part = 0; part < Count; ++part) pairs[part][i] = row.part[part];
            }
#pragma GCC unroll 3
            for (std::size_t part = 0; part < Count; ++part) transpose_pairs(pairs[part], to + part * kTileBytes);
        }
    }
}

// Up to 16 values of a row, or zeros where it is not there: a load of no lanes takes hundreds of cycles where there is no
// memory.
inline __m512 row_part(bool exists, const float *row, std::size_t count) {
    return exists ? _mm512_maskz_loadu_ps(first_lanes(count), row) : _mm512_setzero_ps();
}

// The key whose power is the i-th of a step: rounded powers come 4 from one register and 4 from the next one in turn.
constexpr std::size_t key_in_step(std::size_t i) { return i / 8 * 4 + i % 4 + i / 4 % 2 * kColumns; }

// The values as weights, [strip of 16 columns][step of 32 keys][part][line].
template <std::size_t Count, std::size_t Ahead = kRowsAhead>
void pack_values(const Heads &values, const float *rows, std::size_t depth, std::size_t steps, std::uint8_t *to) {
    for (std::size_t step = 0; step < steps; ++step, to += Count * kTileBytes) {
        for (std::size_t line = 0; line < kTileLines; ++line) {
            const std::size_t key = step * kStep + (Count == 1 ? key_in_step(2 * line) : 2 * line);
            const float *row = rows + key * values.stride;
            if (key + Ahead + 1 < values.rows) {
                fetch(row + Ahead * values.stride, depth);
                fetch(row + (Ahead + 1) * values.stride, depth);
            }
            std::uint8_t *own = to + line * sizeof(Line);
            for (std::size_t column = 0; column < depth; column += kColumns, own += steps * Count * kTileBytes) {
                const std::size_t there = depth - column;
                const Halves<Count> pairs =
                    in_turn<Count>(row_part(key < values.rows, row + column, there),
                                   row_part(key + 1 < values.rows, row + values.stride + column, there));
#pragma GCC unroll 3
                for (std::size_t part = 0; part < Count; ++part)
                    _mm512_store_si512(own + part * kTileBytes, pairs.part[part]);
            }
        }
    }
}

// Whether there is a number in all columns of all rows: ∞ − ∞ has no parts.
inline bool finite(const Heads &heads, std::size_t columns) {
    __m512i largest = _mm512_setzero_si512();
    for (std::size_t i = 0; i < heads.rows; ++i) {
        for (std::size_t at = 0; at < columns; at += 16) {
            const __m512i x = _mm512_castps_si512(
                _mm512_maskz_loadu_ps(first_lanes(columns - at), heads.values + i * heads.stride + at));
            largest = _mm512_max_epi32(largest, _mm512_and_si512(x, _mm512_set1_epi32(0x7fffffff)));
        }
    }
    return _mm512_reduce_max_epi32(largest) < 0x7f800000;
}

}  // namespace
}  // namespace sluice
