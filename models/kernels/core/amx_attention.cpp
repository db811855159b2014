// Attention on the tile unit. Queries, keys, values and powers are rounded to bf16; scores, sums and what is between
// them are float32.
#define LANES 16
#include "amx_tiles.h"
#include "attention.h"
#include "vector.h"

namespace sluice {
namespace {

constexpr std::size_t kTileBytes = kTileLines * sizeof(Line), kTileSums = kTileLines * kColumns;
constexpr std::size_t kStep = tile_inputs(Datatype::bf16);

// Keys of a block, whose scores and powers for two tiles of queries, 24 KiB, stay in the nearest cache.
constexpr std::size_t kKeys = 128, kSteps = kKeys / kStep;

constexpr float kLog2E = 1.44269504f;

constexpr std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

inline __mmask16 first_lanes(std::size_t count) {
    return static_cast<__mmask16>(count < 16 ? (1u << count) - 1 : 0xffff);
}

// 32 floats of a row, of which `count` are there.
struct Floats {
    __m512 low, high;

    Floats(const float *row, std::size_t count)
        : low(_mm512_maskz_loadu_ps(first_lanes(count), row)),
          high(count > 16 ? _mm512_maskz_loadu_ps(first_lanes(count - 16), row + 16) : _mm512_setzero_ps()) {}

    __m512i rounded(float factor) const {
        return (__m512i)_mm512_cvtne2ps_pbh(high * factor, low * factor);
    }
};

// Rows, times a factor, become a tile of activations for each 32 of their columns, [step][16][32].
void round_rows(const float *rows, std::size_t stride, std::size_t count, std::size_t depth, float factor,
                std::uint8_t *to) {
    for (std::size_t k = 0; k < depth; k += kStep, to += kTileBytes) {
        for (std::size_t i = 0; i < kTileLines; ++i) {
            const float *row = rows + i * stride + k;
            _mm512_store_si512(to + i * sizeof(Line),
                               i < count ? Floats(row, depth - k).rounded(factor) : _mm512_setzero_si512());
        }
    }
}

// 16 rows of 16 pairs become 16 lines, one of each pair.
inline void transpose_pairs(__m512i (&rows)[16], std::uint8_t *to) {
    __m512i twos[16], fours[16];
#pragma GCC unroll 8
    for (std::size_t i = 0; i < 16; i += 2) {
        twos[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        twos[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 16; i += 4) {  // now lane 4n of fours[i + p] is that of pair 4n + p
        fours[i] = _mm512_unpacklo_epi64(twos[i], twos[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(twos[i], twos[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(twos[i + 1], twos[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(twos[i + 1], twos[i + 3]);
    }
#pragma GCC unroll 4
    for (std::size_t p = 0; p < 4; ++p) {
        const __m512i even = _mm512_shuffle_i32x4(fours[p], fours[4 + p], 0x88),
                      odd = _mm512_shuffle_i32x4(fours[p], fours[4 + p], 0xdd),
                      later_even = _mm512_shuffle_i32x4(fours[8 + p], fours[12 + p], 0x88),
                      later_odd = _mm512_shuffle_i32x4(fours[8 + p], fours[12 + p], 0xdd);
        _mm512_store_si512(to + p * sizeof(Line), _mm512_shuffle_i32x4(even, later_even, 0x88));
        _mm512_store_si512(to + (4 + p) * sizeof(Line), _mm512_shuffle_i32x4(odd, later_odd, 0x88));
        _mm512_store_si512(to + (8 + p) * sizeof(Line), _mm512_shuffle_i32x4(even, later_even, 0xdd));
        _mm512_store_si512(to + (12 + p) * sizeof(Line), _mm512_shuffle_i32x4(odd, later_odd, 0xdd));
    }
}

// The keys as weights, [tile of 16 keys][step][line].
void pack_keys(const Heads &keys, const float *rows, std::size_t depth, std::size_t tiles, std::uint8_t *to) {
    for (std::size_t tile = 0; tile < tiles; ++tile) {
        for (std::size_t k = 0; k < depth; k += kStep, to += kTileBytes) {
            __m512i pairs[16];
#pragma GCC unroll 16
            for (std::size_t i = 0; i < 16; ++i) {
                const std::size_t key = tile * kTileLines + i;
                pairs[i] = key < keys.rows ? Floats(rows + key * keys.stride + k, depth - k).rounded(1.0f)
                                           : _mm512_setzero_si512();
            }
            transpose_pairs(pairs, to);
        }
    }
}

// The values as weights, [strip of 16 columns][step of 32 keys][line].
void pack_values(const Heads &values, const float *rows, std::size_t depth, std::size_t steps, std::uint8_t *to) {
    for (std::size_t column = 0; column < depth; column += kColumns) {
        const __mmask16 there = first_lanes(depth - column);
        for (std::size_t key = 0; key < steps * kStep; key += 2, to += sizeof(Line)) {
            const auto row = [&](std::size_t number) {
                return number < values.rows ? _mm512_maskz_loadu_ps(there, rows + number * values.stride + column)
                                            : _mm512_setzero_ps();
            };
            const __m256i first = (__m256i)_mm512_cvtneps_pbh(row(key)), second = (__m256i)_mm512_cvtneps_pbh(row(key + 1));
            _mm512_store_si512(to, _mm512_or_si512(_mm512_cvtepu16_epi32(first),
                                                   _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16)));
        }
    }
}

// 2^x for x ≤ 0, to 3e-6 of it, a thousandth of what rounding to bf16 adds; 0 below −126, NaN of NaN.
inline __m512 power_of_two(__m512 x) {
    const __m512 least = _mm512_set1_ps(-126.0f);
    const __mmask16 counts = _mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ);
    const __m512 bounded = _mm512_max_ps(least, x);  // of −∞ there is no fraction, and powers that are subnormal are slow
    const __m512 whole = _mm512_roundscale_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Vector r = (Vector)_mm512_sub_ps(bounded, whole);
    Vector power = r * 9.58285e-3f + 5.590643e-2f;
    power = power * r + 2.4024099e-1f;
    power = power * r + 6.9312419e-1f;
    power = power * r + 1.0f;
    return _mm512_maskz_scalef_ps(counts, (__m512)power, whole);
}

// The scores of a row for a block of keys, in units of ln 2, become powers in bf16, 32 to a step; those from `count` on
// become 0. Returns what the sums of earlier blocks are to be multiplied by, see InstructionSet::soften. All the row is
// in registers.
template <std::size_t Steps>
float soften_steps(const float *scores, const float *bias, std::size_t count, Softmax &state, std::uint8_t *to) {
    const Vector lowest = broadcast(-__builtin_inff());
    Vector s[2 * Steps], largest = lowest;
#pragma GCC unroll 8
    for (std::size_t v = 0; v < 2 * Steps; ++v) s[v] = load(scores + v * kLanes);
    if (bias || count < Steps * kStep) {
#pragma GCC unroll 8
        for (std::size_t v = 0; v < 2 * Steps; ++v) {
            const std::size_t at = v * kLanes;
            const __mmask16 seen = count > at ? first_lanes(count - at) : 0;
            if (bias) s[v] += (Vector)_mm512_maskz_loadu_ps(seen, bias + at) * kLog2E;
            s[v] = (Vector)_mm512_mask_mov_ps((__m512)lowest, seen, (__m512)s[v]);
        }
    }
#pragma GCC unroll 8
    for (std::size_t v = 0; v < 2 * Steps; ++v) largest = (Vector)_mm512_max_ps((__m512)s[v], (__m512)largest);
    const float block = largest_of(largest), maximum = block > state.maximum ? block : state.maximum;
    // Where all are −∞ so far, all powers are 0 and not NaN: a later block of keys may be visible.
    const float base = maximum == -__builtin_inff() ? 0.0f : maximum;
    Vector sum = {};
#pragma GCC unroll 4
    for (std::size_t v = 0; v < 2 * Steps; v += 2, to += kTileBytes) {
        const __m512 low = power_of_two((__m512)(s[v] - base)), high = power_of_two((__m512)(s[v + 1] - base));
        sum += (Vector)low + (Vector)high;
        _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    const bool begins = state.maximum == -__builtin_inff();
    const float kept = begins ? 0.0f
                       : state.maximum == maximum
                           ? 1.0f
                           : _mm512_cvtss_f32(power_of_two((__m512)broadcast(state.maximum - base)));
    state = {maximum, state.sum * kept + sum_of(sum)};
    return kept;
}

float soften(const float *scores, const float *bias, std::size_t count, std::size_t steps, Softmax &state,
             std::uint8_t *to) {
    switch (steps) {
        case 1: return soften_steps<1>(scores, bias, count, state, to);
        case 2: return soften_steps<2>(scores, bias, count, state, to);
        case 3: return soften_steps<3>(scores, bias, count, state, to);
        default: return soften_steps<4>(scores, bias, count, state, to);
    }
}

// Adds to the sums, or begins them: those of one or two tiles of activations, [step] of each, by one or two strips of
// weights. Sums are numbered [tile][strip].
template <std::size_t Tiles, std::size_t Strips>
void multiply(const std::uint8_t *x, std::size_t x_tile, const std::uint8_t *weights, std::size_t strip,
              std::size_t steps, bool begins, float *sums, std::size_t stride, std::size_t sums_tile,
              std::size_t sums_strip) {
    barrier();
    if (begins) {
        _tile_zero(0);
        if constexpr (Strips > 1) _tile_zero(1);
        if constexpr (Tiles > 1) _tile_zero(2);
        if constexpr (Tiles * Strips > 2) _tile_zero(3);
    } else {
        _tile_loadd(0, sums, stride);
        if constexpr (Strips > 1) _tile_loadd(1, sums + sums_strip, stride);
        if constexpr (Tiles > 1) _tile_loadd(2, sums + sums_tile, stride);
        if constexpr (Tiles * Strips > 2) _tile_loadd(3, sums + sums_tile + sums_strip, stride);
    }
    for (std::size_t s = 0; s < steps; ++s, x += kTileBytes, weights += kTileBytes) {
        _tile_loadd(4, x, sizeof(Line));
        _tile_loadd(6, weights, sizeof(Line));
        multiply_tiles<Datatype::bf16, 0, 4, 6>();
        if constexpr (Strips > 1) {
            _tile_loadd(7, weights + strip, sizeof(Line));
            multiply_tiles<Datatype::bf16, 1, 4, 7>();
        }
        if constexpr (Tiles > 1) {
            _tile_loadd(5, x + x_tile, sizeof(Line));
            multiply_tiles<Datatype::bf16, 2, 5, 6>();
            if constexpr (Strips > 1) multiply_tiles<Datatype::bf16, 3, 5, 7>();
        }
    }
    _tile_stored(0, sums, stride);
    if constexpr (Strips > 1) _tile_stored(1, sums + sums_strip, stride);
    if constexpr (Tiles > 1) _tile_stored(2, sums + sums_tile, stride);
    if constexpr (Tiles * Strips > 2) _tile_stored(3, sums + sums_tile + sums_strip, stride);
    barrier();
}

// Calls visit(i, tile, row) for the rows of tiles: to divide i takes a tenth of the time of all that is done for a row.
template <std::size_t Tiles, typename Visit>
inline void each_row(std::size_t count, std::size_t rows, const Visit &visit) {
    for (std::size_t tile = 0, i = 0; tile < Tiles; ++tile) {
        for (std::size_t row = 0; row < rows && i < count; ++row, ++i) visit(i, tile, row);
    }
}

// One head, its keys and values packed.
struct Head {
    const Attention &attention;
    const std::uint8_t *keys, *values;
    std::size_t number;     // among the heads
    std::size_t key_steps;  // of 32 keys, all of them
    std::size_t depth_steps, strips;
    std::uint8_t *queries;  // [tile][step][line], of a block
    float *sums;            // [strip][tile][16][16]

    // Queries first … first + count, `rows` to a tile.
    template <std::size_t Tiles>
    void run_block(const float *from, std::size_t first, std::size_t count, std::size_t rows, float *out,
                   std::size_t out_stride) const {
        alignas(64) float scores[Tiles * kTileLines * kKeys];
        alignas(64) std::uint8_t powers[Tiles * kSteps * kTileBytes];
        Softmax states[Tiles * kTileLines];
        const std::size_t n_keys = attention.keys.rows, depth = attention.value_size;
        const std::size_t hidden = attention.causal ? attention.queries.rows - 1 : 0;  // keys, from the first query
        const std::size_t query_tile = depth_steps * kTileBytes;
        for (std::size_t tile = 0; tile < Tiles; ++tile) {
            const std::size_t at = tile * rows;
            round_rows(from + at * attention.queries.stride, attention.queries.stride,
                       count - at < rows ? count - at : rows, attention.head_size, attention.scale * kLog2E, queries + tile * query_tile);
        }
        for (std::size_t i = 0; i < count; ++i) states[i] = {-__builtin_inff(), 0.0f};
        const auto visible = [&](std::size_t i) { return n_keys - hidden + (attention.causal ? first + i : 0); };
        const std::size_t end = visible(count - 1);
        for (std::size_t first_key = 0; first_key < end; first_key += kKeys) {
            const std::size_t width = end - first_key < kKeys ? end - first_key : kKeys, steps = divide_up(width, kStep);
            for (std::size_t at = 0; at < steps * kStep; at += 2 * kColumns) {
                multiply<Tiles, 2>(queries, query_tile, keys + (first_key + at) / kColumns * query_tile, query_tile,
                                   depth_steps, true, scores + at, kKeys * sizeof(float), kTileLines * kKeys, kColumns);
            }
            each_row<Tiles>(count, rows, [&](std::size_t i, std::size_t tile, std::size_t row) {
                const std::size_t sees = visible(i), left = sees > first_key ? sees - first_key : 0;
                const float *bias = attention.bias_of(number, first + i);
                const float kept = soften(scores + (tile * kTileLines + row) * kKeys,
                                          bias ? bias + first_key : nullptr,
                                          left < width ? left : width, steps, states[i],
                                          powers + tile * kSteps * kTileBytes + row * sizeof(Line));
                if (first_key == 0 || kept == 1) return;
                for (std::size_t strip = 0; strip < strips; ++strip) {
                    float *sum = sums + ((strip * Tiles + tile) * kTileLines + row) * kColumns;
                    store(sum, load(sum) * kept);
                }
            });
            for (std::size_t strip = 0; strip < strips; strip += 2) {
                const std::uint8_t *weights = values + (strip * key_steps + first_key / kStep) * kTileBytes;
                float *to = sums + strip * Tiles * kTileSums;
                const auto add = strip + 1 < strips ? multiply<Tiles, 2> : multiply<Tiles, 1>;
                add(powers, kSteps * kTileBytes, weights, key_steps * kTileBytes, steps, first_key == 0, to, sizeof(Line),
                    kTileSums, Tiles * kTileSums);
            }
        }
        each_row<Tiles>(count, rows, [&](std::size_t i, std::size_t tile, std::size_t row) {
            const Vector factor = broadcast(1.0f / states[i].sum);
            const float *sum = sums + (tile * kTileLines + row) * kColumns;
            float *to = out + i * out_stride;
            std::size_t at = 0;
            for (; at + kColumns <= depth; at += kColumns, sum += Tiles * kTileSums) store(to + at, load(sum) * factor);
            if (at < depth) store_first(to + at, load(sum) * factor, depth - at);
        });
    }
};

}  // namespace

void attend_on_tiles(const Attention &attention, float *scratch, float *out) {
    const std::size_t n_queries = attention.queries.rows, depth = attention.head_size,
                      value_depth = attention.value_size;
    const AttentionTiles sizes(attention);
    auto *keys = reinterpret_cast<std::uint8_t *>(scratch), *values = keys + sizes.keys * kTileBytes,
         *queries = values + sizes.values * kTileBytes;
    float *sums = reinterpret_cast<float *>(queries + sizes.queries * kTileBytes);
    // Positions are shared out evenly over the tiles.
    const std::size_t tiles = divide_up(n_queries, kTileLines), rows = divide_up(n_queries, tiles);
    const std::size_t out_stride = attention.heads * value_depth;
    enter(rows);
    for (std::size_t h = 0; h < attention.heads; ++h) {
        const auto key_head = static_cast<std::size_t>(attention.key_heads[h]);
        if (h == 0 || attention.key_heads[h] != attention.key_heads[h - 1]) {
            pack_keys(attention.keys, attention.keys.values + key_head * depth, depth, 2 * sizes.key_steps, keys);
            pack_values(attention.values, attention.values.values + key_head * value_depth, value_depth, sizes.key_steps,
                        values);
        }
        const Head head{attention, keys, values, h, sizes.key_steps, sizes.depth_steps, sizes.strips, queries, sums};
        for (std::size_t first = 0; first < n_queries; first += 2 * rows) {
            const std::size_t left = n_queries - first;
            const float *from = attention.queries.values + first * attention.queries.stride + h * depth;
            float *to = out + first * out_stride + h * value_depth;
            if (left > rows) head.run_block<2>(from, first, left < 2 * rows ? left : 2 * rows, rows, to, out_stride);
            else head.run_block<1>(from, first, left, rows, to, out_stride);
        }
    }
    leave();
}

}  // namespace sluice
