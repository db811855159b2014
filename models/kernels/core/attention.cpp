#include "attention.h"

#include <algorithm>
#include <limits>

#include "memory.h"
#include "split.h"

namespace sluice {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Multiply-accumulates of a call; for fewer, waking another thread takes as long.
constexpr std::size_t kWorthSharing = 4 << 20;

// A block of scores, 24 KiB: it stays in the nearest caches between its two products.
constexpr std::size_t kQueries = 48, kKeys = kKeyBlock;
static_assert(kKeys % kBlock == 0, "transposed keys lie in blocks of kBlock");

// So few queries are multiplied with the keys as they lie; more are worth transposing them first.
constexpr std::size_t kQueriesInPlace = 3;

// With fewer queries, making parts of the keys and values takes longer than the tile unit saves, and packing the values
// longer than vectors save.
constexpr std::size_t kQueriesInParts = 16;

constexpr std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

struct Buffers {
    FloatBuffer keys;    // of one head, [blocks of 64][head size][64]
    FloatBuffer values;  // of one head, [keys][value size, padded to whole vectors]
    FloatBuffer sums;    // [blocks of 64 of the value size][queries][64]
    FloatBuffer packed;  // of a TileAttention or VectorAttention
};

Buffers &buffers() {
    thread_local Buffers kept;
    return kept;
}

// Blocks of 64 rows become [depth][64]; the last is filled up with zeros to whole vectors, which is what tiles read.
void transpose(const float *rows, std::size_t stride, std::size_t count, std::size_t depth, std::size_t lanes,
               float *out) {
    for (std::size_t first = 0; first < count; first += kBlock, out += depth * kBlock) {
        const std::size_t width = std::min(kBlock, count - first), padded = divide_up(width, lanes) * lanes;
        for (std::size_t j = 0; j < width; ++j) {
            const float *row = rows + (first + j) * stride;
            for (std::size_t k = 0; k < depth; ++k) out[k * kBlock + j] = row[k];
        }
        for (std::size_t k = 0; k < depth && width < padded; ++k)
            std::fill(out + k * kBlock + width, out + k * kBlock + padded, 0.0f);
    }
}

// What a tile does to scores, for each of its columns.
struct ScoreEpilogue {
    alignas(64) float scale[kBlock], shift[kBlock] = {}, saliency[kBlock];

    explicit ScoreEpilogue(float factor) {
        std::fill_n(scale, kBlock, factor);
        std::fill_n(saliency, kBlock, 1.0f);
    }
};

// One head of the queries, and the keys and values that it reads.
struct Head {
    const InstructionSet &set;
    const Attention &attention;
    const ScoreEpilogue &epilogue;
    const float *queries, *keys, *values;
    const float *transposed_keys;  // null: few queries
    std::size_t value_stride;
    std::size_t number;  // among the heads
    float *sums;

    // A product of rows with [depth][columns], by tiles.
    void multiply(const float *const *rows, std::size_t count, const float *weights, std::size_t weight_row,
                  std::size_t depth, std::size_t columns, Tile tile) const {
        const std::size_t width = set.vectors * set.lanes;
        float *const sums_begin = tile.sums, *const out = tile.out;
        tile.taps = 1;
        tile.depth = depth;
        tile.weight_row = weight_row;
        for (std::size_t at = 0; at < columns; at += width) {
            tile.columns = std::min(width, columns - at);
            tile.weights = weights + at;
            const std::size_t vectors = divide_up(tile.columns, set.lanes),
                              tiles = divide_up(count, set.rows[vectors - 1]);
            for (std::size_t i = 0; i < tiles; ++i) {
                const std::size_t first = i * count / tiles;
                tile.activations = rows + first;
                tile.sums = sums_begin ? sums_begin + first * kBlock + at : nullptr;
                tile.out = out ? out + first * tile.out_stride + at : nullptr;
                set.tile(tile, (i + 1) * count / tiles - first, vectors);
            }
        }
    }

    // scores[i][j] = scale · q_i · k_j for the queries and keys of a block.
    void score(const float *const *rows, std::size_t count, std::size_t first_key, std::size_t n_keys,
               float *scores) const {
        const std::size_t depth = attention.head_size;
        if (!transposed_keys) {
            return set.products({rows[0], attention.queries.stride, count, keys + first_key * attention.keys.stride,
                                 attention.keys.stride, n_keys, depth, attention.scale, scores, kKeys});
        }
        Tile tile{};
        tile.first = tile.last = true;
        tile.scale = epilogue.scale;
        tile.shift = epilogue.shift;
        tile.saliency = epilogue.saliency;
        tile.floor = -kInfinity;
        tile.ceiling = kInfinity;
        tile.out_stride = kKeys;
        for (std::size_t at = 0; at < n_keys; at += kBlock) {
            tile.out = scores + at;
            multiply(rows, count, transposed_keys + (first_key + at) * depth, kBlock, depth,
                     std::min(kBlock, n_keys - at), tile);
        }
    }

    void run_block(std::size_t first_query, std::size_t count, float *out) const {
        const std::size_t depth = attention.value_size, out_stride = attention.out_stride;
        const float *rows[kQueries];
        const float *powers[kQueries];
        alignas(64) float scores[kQueries * kKeys];
        Softmax states[kQueries];
        float far[kQueries] = {};  // the sums of those keys
        for (std::size_t i = 0; i < count; ++i) {
            rows[i] = queries + (first_query + i) * attention.queries.stride;
            powers[i] = scores + i * kKeys;
            states[i] = {-kInfinity, 0.0f};
        }
        const auto visible = [&](std::size_t i) { return attention.visible(first_query + i); };
        const std::size_t end = visible(count - 1);
        for (std::size_t first_key = 0; first_key < end; first_key += kKeys) {
            const bool is_far = attention.far.has(first_key);
            if (is_far && attention.far.skipped) continue;
            const std::size_t width = std::min(kKeys, end - first_key);
            score(rows, count, first_key, width, scores);
            for (std::size_t i = 0; i < count; ++i) {
                const std::size_t seen = std::min(width, std::max(visible(i), first_key) - first_key);
                const float *bias = attention.bias_of(number, first_query + i);
                const float before = states[i].sum;
                const float kept = set.soften(scores + i * kKeys, bias ? bias + first_key : nullptr, seen, states[i]);
                far[i] = far[i] * kept + (is_far ? states[i].sum - before * kept : 0.0f);
                std::fill(scores + i * kKeys + seen, scores + i * kKeys + width, 0.0f);
                if (first_key == 0 || kept == 1) continue;
                for (std::size_t at = 0; at < depth; at += kBlock) {
                    float *sum = sums + at * kQueries + i * kBlock;
                    for (std::size_t k = 0; k < std::min(kBlock, depth - at); ++k) sum[k] *= kept;
                }
            }
            Tile tile{};
            tile.first = first_key == 0;
            for (std::size_t at = 0; at < depth; at += kBlock) {
                tile.sums = sums + at * kQueries;
                multiply(powers, count, values + first_key * value_stride + at, value_stride, width,
                         std::min(kBlock, depth - at), tile);
            }
        }
        if (float *share = attention.far.share) {
            for (std::size_t i = 0; i < count; ++i) *share = std::max(*share, far[i] / states[i].sum);
        }
        for (std::size_t i = 0; i < count; ++i) {
            const float factor = 1.0f / states[i].sum;
            for (std::size_t at = 0; at < depth; at += kBlock) {
                const float *sum = sums + at * kQueries + i * kBlock;
                for (std::size_t k = 0; k < std::min(kBlock, depth - at); ++k) out[i * out_stride + at + k] = factor * sum[k];
            }
        }
    }
};

// What does it, the same for all parts of a call. With neither it is the loops that all instruction sets have.
struct Way {
    bool on_tiles = false;
    const VectorAttention *vectors = nullptr;
};

#if defined(SLUICE_X86)
// Heads that one of them stops at are done in float32.
void attend_by_vectors(const Attention &attention, const VectorAttention &vectors, FloatBuffer &kept, float *out) {
    const std::size_t queries = attention.queries.rows;
    for (std::size_t done = 0; done < attention.heads;) {
        const Attention rest = attention.part(done, attention.heads - done, 0, queries);
        done += vectors.attend(rest, kept.reserve(vectors.scratch_floats(rest)), attention.out_of(out, done, 0));
        if (done == attention.heads) return;
        const Attention one = attention.part(done, 1, 0, queries);
        done += kAvx512Attention.attend(one, kept.reserve(kAvx512Attention.scratch_floats(one)),
                                        attention.out_of(out, done, 0));
    }
}
#endif

void attend_alone(const InstructionSet &set, const Attention &attention, [[maybe_unused]] const Way &way, float *out) {
    const std::size_t n_queries = attention.queries.rows, n_keys = attention.keys.rows, depth = attention.head_size,
                      value_depth = attention.value_size;
    Buffers &kept = buffers();
#if defined(SLUICE_AMX)
    if (way.on_tiles) {
        const std::size_t floats = AttentionTiles(attention).floats(attention.may_round ? 1 : kParts);
        return set.tile_attention->attend(attention, kept.packed.reserve(floats), out);
    }
#endif
#if defined(SLUICE_X86)
    if (way.vectors) return attend_by_vectors(attention, *way.vectors, kept.packed, out);
#endif
    const bool transposes = attention.all_queries > kQueriesInPlace * attention.together;
    const std::size_t padded = divide_up(value_depth, set.lanes) * set.lanes;
    float *keys = transposes ? kept.keys.reserve(divide_up(n_keys, kBlock) * kBlock * depth) : nullptr;
    // A tile reads whole vectors: where these end beyond the head, a copy of it.
    float *values = padded == value_depth ? nullptr : kept.values.reserve(n_keys * padded);
    float *sums = kept.sums.reserve(divide_up(value_depth, kBlock) * kBlock * kQueries);
    const ScoreEpilogue epilogue(attention.scale);
    for (std::size_t h = 0; h < attention.heads; ++h) {
        const std::size_t key_head = attention.key_head(h);
        const float *own_keys = attention.keys.values + key_head * depth,
                    *own_values = attention.values.values + key_head * value_depth;
        if (h == 0 || key_head != attention.key_head(h - 1)) {
            if (keys) transpose(own_keys, attention.keys.stride, n_keys, depth, set.lanes, keys);
            for (std::size_t j = 0; values && j < n_keys; ++j)
                std::copy_n(own_values + j * attention.values.stride, value_depth, values + j * padded);
        }
        const Head head{set,
                        attention,
                        epilogue,
                        attention.queries_of(h),
                        own_keys,
                        values ? values : own_values,
                        keys,
                        values ? padded : attention.values.stride,
                        h,
                        sums};
        // Evenly shared, as positions are.
        const std::size_t blocks = divide_up(n_queries, kQueries);
        for (std::size_t i = 0; i < blocks; ++i) {
            const std::size_t first = i * n_queries / blocks;
            head.run_block(first, (i + 1) * n_queries / blocks - first, attention.out_of(out, h, first));
        }
    }
}

Way way_of([[maybe_unused]] const InstructionSet &set, const Attention &attention) {
    Way way;
    if (attention.together > 1) return way;
    [[maybe_unused]] const std::size_t queries = attention.all_queries;
#if defined(SLUICE_AMX)
    way.on_tiles = set.tile_attention && queries > (attention.may_round ? kQueriesInPlace : kQueriesInParts) &&
                   set.tile_attention->finite(attention);
    if (way.on_tiles) return way;
#endif
#if defined(SLUICE_X86)
    if (attention.may_round && queries > kQueriesInPlace) way.vectors = set.rounded_attention;
    if (!way.vectors && queries > kQueriesInParts) way.vectors = set.attention;
#endif
    return way;
}

}  // namespace

Attention Attention::part(std::size_t head, std::size_t n_heads, std::size_t query, std::size_t n_queries) const {
    Attention part = *this;
    part.queries = {queries_of(head) + query * queries.stride, n_queries, queries.stride};
    part.heads = n_heads;
    part.key_heads = key_heads + head * together;
    part.first_query = first_query + query;
    if (bias && !one_bias) part.bias = bias + head * all_queries * keys.rows;
    return part;
}

Attention Attention::side_by_side() const {
    if (all_queries != 1) return *this;
    std::size_t run = 1;
    while (run < heads && key_heads[run] == key_heads[0]) ++run;
    if (heads % run != 0 || run > kQueries) return *this;
    for (std::size_t h = 0; h < heads; ++h) {
        if (key_heads[h] != key_heads[h / run * run]) return *this;
    }
    Attention step = *this;
    step.queries = {queries.values, run, head_size};
    step.heads = heads / run;
    step.causal = false;
    step.all_queries = step.together = run;
    step.out_stride = value_size;
    return step;
}

void attend(const InstructionSet &set, const Attention &all_heads, float *out, Threads *threads) {
    const Attention attention = all_heads.side_by_side();
    const Way way = way_of(set, attention);
    const std::size_t rows = attention.queries.rows, all = attention.heads * rows,
                      macs = all * attention.keys.rows * (attention.head_size + attention.value_size);
    if (!threads || threads->count() == 1 || macs < kWorthSharing) return attend_alone(set, attention, way, out);
    threads->run(threads->count(), [&](std::size_t number) {
        const std::size_t end = (number + 1) * all / threads->count();
        for (std::size_t at = number * all / threads->count(); at < end;) {
            // The rest of a head, or whole ones, whose keys are packed once.
            const std::size_t head = at / rows, query = at % rows;
            const std::size_t heads = query == 0 && end - at > rows ? (end - at) / rows : 1,
                              queries = heads > 1 ? rows : std::min(rows - query, end - at);
            attend_alone(set, attention.part(head, heads, query, queries), way, attention.out_of(out, head, query));
            at += heads * queries;
        }
    });
}

}  // namespace sluice
