// Attention on the tile unit. Where products may be rounded, queries, keys, values and powers are rounded to bf16; else
// each is the sum of three numbers in bf16, see split.h. Scores, sums and what is between them are float32.
#define LANES 16
#include "amx_tiles.h"
#include "attention_packing.h"
#include "powers.h"
#include "vector.h"

namespace sluice {
namespace {

constexpr std::size_t kTileSums = kTileLines * kColumns;

// Keys of a block, so that the scores and powers of two blocks for two tiles of queries stay in the nearest cache.
template <std::size_t Count>
constexpr std::size_t kKeys = Count == 1 ? 96 : 64;
template <std::size_t Count>
constexpr std::size_t kSteps = kKeys<Count> / kStep;

constexpr std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// Scores are in such parts of an octave.
template <std::size_t Count>
constexpr float kOctave = Count == 1 ? kRoundedOctave : 1.0f;

// Of a query: powers are relative to 2^base, a whole number, so that they are rounded alike whatever it is. It follows
// the largest score only where powers would grow past 2^kSlack: sums of float32 have the room.
struct Softened {
    float base = -__builtin_inff();
    Vector sum = {};
};

template <std::size_t Count>
constexpr float kSlack = 16 * kOctave<Count>;

// Adds the bias to scores, and hides those from `count` on.
template <std::size_t Count>
void bias_scores(float *scores, const float *bias, std::size_t count, std::size_t steps) {
    for (std::size_t at = 0; at < steps * kStep; at += kLanes) {
        const __mmask16 seen = count > at ? first_lanes(count - at) : 0;
        __m512 s = _mm512_load_ps(scores + at);
        if (bias) s += _mm512_maskz_loadu_ps(seen, bias + at) * (kLog2E * kOctave<Count>);
        _mm512_store_ps(scores + at, _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), seen, s));
    }
}

// The scores of a row for a block of keys become powers, 32 to a step. Returns what the sums of earlier blocks are to be
// multiplied by.
template <std::size_t Count>
inline float soften(const float *scores, std::size_t steps, Softened &state, std::uint8_t *to) {
    __m512 largest = _mm512_max_ps(_mm512_load_ps(scores), _mm512_load_ps(scores + kLanes));
    for (std::size_t at = kStep; at < steps * kStep; at += kStep) {
        largest = _mm512_max_ps(_mm512_load_ps(scores + at), largest);
        largest = _mm512_max_ps(_mm512_load_ps(scores + at + kLanes), largest);
    }
    float kept = 1.0f;
    if (_mm512_cmp_ps_mask(largest, _mm512_set1_ps(state.base + kSlack<Count>), _CMP_GT_OQ)) {
        constexpr float kUnit = kOctave<Count>;
        const float base = __builtin_ceilf(largest_of((Vector)largest) / kUnit) * kUnit, by = (state.base - base) / kUnit;
        kept = _mm512_cvtss_f32(_mm512_scalef_ps(_mm512_set1_ps(by < -126.0f ? 0.0f : 1.0f), _mm512_set1_ps(by)));
        state = {base, state.sum * kept};
    }
    // Where all are −∞ so far, all powers are 0 and not NaN: a later block of keys may be visible.
    const __m512 base = _mm512_set1_ps(state.base == -__builtin_inff() ? 0.0f : state.base);
    __m512 sum = (__m512)state.sum;
    for (std::size_t step = 0; step < steps; ++step, scores += kStep, to += Count * kTileBytes) {
        const __m512 low = _mm512_load_ps(scores) - base, high = _mm512_load_ps(scores + kLanes) - base;
        if constexpr (Count == 1) {
            const __m512i powers = rounded_powers(low, high);
            sum = _mm512_dpbf16_ps(sum, (__m512bh)powers, (__m512bh)_mm512_set1_epi16(127 << 7));
            _mm512_store_si512(to, powers);
        } else {
            const __m512 first = exact_power(low), second = exact_power(high);
            sum += first + second;
            const Halves<Count> powers = side_by_side<Count>(first, second);
#pragma GCC unroll 3
            for (std::size_t part = 0; part < Count; ++part)
                _mm512_store_si512(to + part * kTileBytes, powers.part[part]);
        }
    }
    state.sum = (Vector)sum;
    return kept;
}

// A sum of products: one or two tiles of activations, [step][part] of each, by one or two strips of weights. Sums are
// numbered [tile][strip].
struct Group {
    const std::uint8_t *x;
    std::size_t x_tile;
    const std::uint8_t *weights;
    std::size_t strip, strips, steps;
    bool begins;  // at zero, and is not added to
    float *sums;
    std::size_t stride, sums_tile, sums_strip;
};

// The products of parts that make one of fp32, the least first and each with one factor of the one before.
struct PartProduct {
    std::size_t x, weights;
    bool new_x, new_weights;
};

template <std::size_t Count>
constexpr std::size_t kProducts = Count == 1 ? 1 : 6;
constexpr PartProduct kPartProducts[] = {{0, 2, true, true},  {0, 1, false, true}, {1, 1, true, false},
                                         {1, 0, false, true}, {0, 0, true, false}, {2, 0, true, false}};

// Of all its steps, one product of parts.
template <std::size_t Tiles, std::size_t Count>
inline void multiply_step(const Group &group, std::size_t step) {
    const bool two = group.strips > 1;
    PartProduct product = {0, 0, true, true};
    const std::size_t products = kProducts<Count>;
    if constexpr (Count > 1) product = kPartProducts[step % products];
    barrier();
    if (step == 0 && group.begins) {
        _tile_zero(0);
        _tile_zero(1);
        if constexpr (Tiles > 1) {
            _tile_zero(2);
            _tile_zero(3);
        }
    } else if (step == 0) {
        _tile_loadd(0, group.sums, group.stride);
        if (two) _tile_loadd(1, group.sums + group.sums_strip, group.stride);
        if constexpr (Tiles > 1) {
            _tile_loadd(2, group.sums + group.sums_tile, group.stride);
            if (two) _tile_loadd(3, group.sums + group.sums_tile + group.sums_strip, group.stride);
        }
    }
    const std::size_t from = step / products * Count * kTileBytes;
    if (product.new_x) {
        const std::uint8_t *x = group.x + from + product.x * kTileBytes;
        _tile_loadd(4, x, sizeof(Line));
        if constexpr (Tiles > 1) _tile_loadd(5, x + group.x_tile, sizeof(Line));
    }
    if (product.new_weights) {
        const std::uint8_t *weights = group.weights + from + product.weights * kTileBytes;
        _tile_loadd(6, weights, sizeof(Line));
        if (two) _tile_loadd(7, weights + group.strip, sizeof(Line));
    }
    multiply_tiles<Datatype::bf16, 0, 4, 6>();
    if (two) multiply_tiles<Datatype::bf16, 1, 4, 7>();
    if constexpr (Tiles > 1) {
        multiply_tiles<Datatype::bf16, 2, 5, 6>();
        if (two) multiply_tiles<Datatype::bf16, 3, 5, 7>();
    }
    if (step + 1 == group.steps) {
        _tile_stored(0, group.sums, group.stride);
        if (two) _tile_stored(1, group.sums + group.sums_strip, group.stride);
        if constexpr (Tiles > 1) {
            _tile_stored(2, group.sums + group.sums_tile, group.stride);
            if (two) _tile_stored(3, group.sums + group.sums_tile + group.sums_strip, group.stride);
        }
    }
    barrier();
}

// Calls visit(i, tile, row) for the rows of tiles: to divide i takes a tenth of the time of all that is done for a row.
template <std::size_t Tiles, typename Visit>
inline void each_row(std::size_t count, std::size_t rows, const Visit &visit) {
    for (std::size_t tile = 0, i = 0; tile < Tiles; ++tile) {
        for (std::size_t row = 0; row < rows && i < count; ++row, ++i) visit(i, tile, row);
    }
}

// One head, its keys and values packed, in `Count` parts.
template <std::size_t Count>
struct Head {
    static constexpr std::size_t kBlockKeys = kKeys<Count>, kBlockSteps = kSteps<Count>;
    static constexpr std::size_t kStepBytes = Count * kTileBytes;

    const Attention &attention;
    const std::uint8_t *keys, *values;
    std::size_t number;     // among the heads
    std::size_t key_steps;  // of 32 keys, all of them
    std::size_t depth_steps, strips;
    std::uint8_t *queries;  // [tile][step][part][line], of a block
    float *sums;            // [strip][tile][16][16]

    // Keys of a block that are seen by one of its queries at least.
    static std::size_t steps_of(std::size_t block, std::size_t end) {
        const std::size_t first = block * kBlockKeys;
        return divide_up(end - first < kBlockKeys ? end - first : kBlockKeys, kStep);
    }

    template <std::size_t Tiles>
    Group score_group(std::size_t block, std::size_t pair, float *scores) const {
        const std::size_t tile = depth_steps * kStepBytes, at = pair * 2 * kColumns;
        return {queries, tile, keys + (block * kBlockKeys + at) / kColumns * tile, tile, 2,
                depth_steps * kProducts<Count>, true, scores + at,
                kBlockKeys * sizeof(float), kTileLines * kBlockKeys, kColumns};
    }

    template <std::size_t Tiles>
    Group value_group(std::size_t block, std::size_t pair, std::size_t steps, const std::uint8_t *powers) const {
        const std::size_t strip = 2 * pair;
        return {powers, kBlockSteps * kStepBytes, values + (strip * key_steps + block * kBlockSteps) * kStepBytes,
                key_steps * kStepBytes, strips - strip < 2 ? strips - strip : 2, steps * kProducts<Count>, block == 0,
                sums + strip * Tiles * kTileSums, sizeof(Line), kTileSums, Tiles * kTileSums};
    }

    // What the tile unit does while the vector units soften the scores of a block: the scores of the next one, and the
    // sums of values for the one before.
    template <std::size_t Tiles>
    class Products {
    public:
        Products(const Head &head, std::size_t block, std::size_t end, float *scores, const std::uint8_t *powers)
            : head_(head), block_(block), scores_(scores), powers_(powers),
              score_groups_(block * kBlockKeys < end ? steps_of(block, end) : 0),
              value_steps_(block > 1 ? steps_of(block - 2, end) : 0),
              left_(kProducts<Count> * (score_groups_ * head.depth_steps + divide_up(head.strips, 2) * value_steps_)) {}

        std::size_t left() const { return left_; }

        void step() {
            if (step_ == 0) {
                group_ = number_ < score_groups_
                             ? head_.template score_group<Tiles>(block_, number_, scores_)
                             : head_.template value_group<Tiles>(block_ - 2, number_ - score_groups_, value_steps_, powers_);
            }
            multiply_step<Tiles, Count>(group_, step_);
            --left_;
            if (++step_ == group_.steps) {
                step_ = 0;
                ++number_;
            }
        }

        void finish() {
            while (left_ > 0) step();
        }

    private:
        const Head &head_;
        const std::size_t block_;
        float *scores_;
        const std::uint8_t *powers_;
        const std::size_t score_groups_, value_steps_;
        std::size_t left_, number_ = 0, step_ = 0;
        Group group_;
    };

    // Queries first … first + count, `rows` to a tile.
    template <std::size_t Tiles>
    void run_block(const float *from, std::size_t first, std::size_t count, std::size_t rows, float *out) const {
        constexpr std::size_t kQueries = Tiles * kTileLines;
        alignas(64) float scores[2][kQueries * kBlockKeys];
        alignas(64) std::uint8_t powers[2][Tiles * kBlockSteps * kStepBytes];
        Softened states[kQueries];
        const std::size_t depth = attention.value_size;
        const std::size_t query_tile = depth_steps * kStepBytes;
        for (std::size_t tile = 0; tile < Tiles; ++tile) {
            const std::size_t at = tile * rows;
            pack_queries<Count>(from + at * attention.queries.stride, attention.queries.stride,
                                count - at < rows ? count - at : rows, attention.head_size,
                                attention.scale * kLog2E * kOctave<Count>, queries + tile * query_tile);
        }
        const std::size_t end = attention.visible(first + count - 1), blocks = divide_up(end, kBlockKeys);
        Products<Tiles>(*this, 0, end, scores[0], nullptr).finish();
        for (std::size_t block = 0; block < blocks; ++block) {
            const std::size_t first_key = block * kBlockKeys, steps = steps_of(block, end);
            const std::size_t width = end - first_key < kBlockKeys ? end - first_key : kBlockKeys;
            Products<Tiles> products(*this, block + 1, end, scores[(block + 1) % 2], powers[(block + 1) % 2]);
            const std::size_t all = products.left();
            std::size_t due = 0;  // in parts of a row: steps are spread evenly, without a division for each
            float kept[kQueries];
            bool rebased = false;
            each_row<Tiles>(count, rows, [&](std::size_t i, std::size_t tile, std::size_t row) {
                const std::size_t sees = attention.visible(first + i), left = sees > first_key ? sees - first_key : 0;
                const float *bias = attention.bias_of(number, first + i);
                float *row_scores = scores[block % 2] + (tile * kTileLines + row) * kBlockKeys;
                if (bias || left < steps * kStep)
                    bias_scores<Count>(row_scores, bias ? bias + first_key : nullptr, left < width ? left : width, steps);
                kept[i] = soften<Count>(row_scores, steps, states[i],
                                        powers[block % 2] + tile * kBlockSteps * kStepBytes + row * sizeof(Line));
                rebased |= kept[i] != 1.0f;
                for (due += all; due >= count; due -= count) products.step();
            });
            if (block == 0 || !rebased) continue;
            each_row<Tiles>(count, rows, [&](std::size_t i, std::size_t tile, std::size_t row) {
                for (std::size_t strip = 0; strip < strips; ++strip) {
                    float *sum = sums + ((strip * Tiles + tile) * kTileLines + row) * kColumns;
                    store(sum, load(sum) * kept[i]);
                }
            });
        }
        Products<Tiles>(*this, blocks + 1, end, nullptr, powers[(blocks + 1) % 2]).finish();
        each_row<Tiles>(count, rows, [&](std::size_t i, std::size_t tile, std::size_t row) {
            const Vector factor = broadcast(1.0f / sum_of(states[i].sum));
            const float *sum = sums + (tile * kTileLines + row) * kColumns;
            float *to = out + i * attention.out_stride;
            std::size_t at = 0;
            for (; at + kColumns <= depth; at += kColumns, sum += Tiles * kTileSums) store(to + at, load(sum) * factor);
            if (at < depth) store_first(to + at, load(sum) * factor, depth - at);
        });
    }
};

template <std::size_t Count>
void run(const Attention &attention, float *scratch, float *out) {
    const std::size_t n_queries = attention.queries.rows, depth = attention.head_size,
                      value_depth = attention.value_size, bytes = Count * kTileBytes;
    const AttentionTiles sizes(attention);
    auto *keys = reinterpret_cast<std::uint8_t *>(scratch), *values = keys + sizes.keys * bytes,
         *queries = values + sizes.values * bytes;
    float *sums = reinterpret_cast<float *>(queries + sizes.queries * bytes);
    // Positions are shared out evenly over the tiles.
    const std::size_t tiles = divide_up(n_queries, kTileLines), rows = divide_up(n_queries, tiles);
    enter(rows);
    for (std::size_t h = 0; h < attention.heads; ++h) {
        const auto key_head = static_cast<std::size_t>(attention.key_heads[h]);
        if (h == 0 || attention.key_heads[h] != attention.key_heads[h - 1]) {
            pack_keys<Count>(attention.keys, attention.keys.values + key_head * depth, depth, 2 * sizes.key_steps, keys);
            pack_values<Count>(attention.values, attention.values.values + key_head * value_depth, value_depth,
                               sizes.key_steps, values);
        }
        const Head<Count> head{attention, keys, values, h, sizes.key_steps, sizes.depth_steps, sizes.strips, queries, sums};
        for (std::size_t first = 0; first < n_queries; first += 2 * rows) {
            const std::size_t left = n_queries - first;
            const float *from = attention.queries.values + first * attention.queries.stride + h * depth;
            float *to = attention.out_of(out, h, first);
            const std::size_t count = left < 2 * rows ? left : 2 * rows;
            if (left > rows) head.template run_block<2>(from, first, count, rows, to);
            else head.template run_block<1>(from, first, count, rows, to);
        }
    }
    leave();
}

// Of keys alone where powers are rounded: all else that is not a number makes a result that is none, but the power of a
// score that is none would be 0.
bool all_finite(const Attention &attention) {
    std::size_t key_heads = 0;
    for (std::size_t h = 0; h < attention.heads; ++h) {
        const auto own = static_cast<std::size_t>(attention.key_heads[h]) + 1;
        key_heads = own > key_heads ? own : key_heads;
    }
    if (!finite(attention.keys, key_heads * attention.head_size)) return false;
    return attention.may_round || (finite(attention.queries, attention.heads * attention.head_size) &&
                                   finite(attention.values, key_heads * attention.value_size));
}

void attend_on_tiles(const Attention &attention, float *scratch, float *out) {
    if (attention.may_round) run<1>(attention, scratch, out);
    else run<kParts>(attention, scratch, out);
}

}  // namespace

const TileAttention kTileAttention = {all_finite, attend_on_tiles};

}  // namespace sluice
