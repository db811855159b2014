// Softmax attention of one sequence, over the heads that are there.
#pragma once

#include "reduced_set.h"
#include "threads.h"

namespace sluice {

// Keys are read so many at a time, from the first.
constexpr std::size_t kKeyBlock = 128;

// Whole blocks of keys, [begin, end), none of them the first. Where they are skipped they are not attended to. Else the share
// of the attention that the queries pay them, the largest of all, goes to `share`, unless that is null or larger before.
struct FarKeys {
    std::size_t begin = 0, end = 0;
    bool skipped = false;
    float *share = nullptr;

    bool has(std::size_t key) const { return begin <= key && key < end; }
};

// [rows][heads][columns of a head], where the rows may lie apart.
struct Heads {
    const float *values;
    std::size_t rows, stride;  // floats from one row to the next
};

struct Attention {
    Heads queries, keys, values;
    std::size_t heads, head_size, value_size;  // columns of a head of queries and keys, and of values
    const std::int32_t *key_heads;  // for each head of the queries, the one of keys and values that it reads
    const float *bias;              // [heads][queries][keys], or [keys] for all of them; null: none
    float scale;
    bool causal;  // query i, of n, sees keys up to keys.rows − n + i
    bool one_bias = false;   // it is [keys]
    bool may_round = false;  // to bf16, where there is a tile unit
    std::size_t all_queries = queries.rows, first_query = 0;  // those here are a part of all
    std::size_t out_stride = heads * value_size;
    std::size_t together = 1;  // heads of one position that read the same keys, and are so many queries of one head
    FarKeys far = {};          // of one position: with more queries, or threads, there must be none

    // Those of a query of a head.
    const float *bias_of(std::size_t head, std::size_t query) const {
        return bias && !one_bias ? bias + (head * all_queries + first_query + query) * keys.rows : bias;
    }

    // How many keys a query sees.
    std::size_t visible(std::size_t query) const {
        return causal ? keys.rows - all_queries + 1 + first_query + query : keys.rows;
    }

    const float *queries_of(std::size_t head) const { return queries.values + head * together * head_size; }

    std::size_t key_head(std::size_t head) const { return static_cast<std::size_t>(key_heads[head * together]); }

    float *out_of(float *out, std::size_t head, std::size_t query) const {
        return out + query * out_stride + head * together * value_size;
    }

    // The same for one position, whose heads that read the same keys are queries of one.
    Attention side_by_side() const;

    // Some queries of some heads; their results begin at out_of() the first.
    Attention part(std::size_t head, std::size_t n_heads, std::size_t query, std::size_t n_queries) const;
};

// out[i][h] = Σ_j softmax_j(scale · q[i][h] · k[j][key_heads[h]] + bias[h][i][j]) v[j][key_heads[h]], as [queries][heads ·
// value size]. Softmax is taken a block of keys at a time (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022), so
// memory grows with the sequence and not with its square. Where they may be rounded,
// more than a few queries go to the tile unit. Threads share queries and heads evenly, and change no bit.
void attend(const InstructionSet &set, const Attention &attention, float *out, Threads *threads = nullptr);

#if defined(SLUICE_X86)
// Attention of many queries by vector instructions that are not everywhere.
struct VectorAttention {
    std::size_t (*scratch_floats)(const Attention &);
    // How many heads, the first ones, are done: up to one that is not finite where it has to be. `scratch` is on a 64-byte
    // boundary.
    std::size_t (*attend)(const Attention &, float *scratch, float *out);
};

extern const VectorAttention kAvx512Attention, kBf16Attention;
#endif

#if defined(SLUICE_AMX)
// What TileAttention::attend needs beside its arguments, in tiles of 1 KiB: of one head, and for a block of queries. All but
// the sums are there once for each part that a number has.
struct AttentionTiles {
    std::size_t key_steps, depth_steps, strips;  // of 32 keys, 32 columns and 16 columns
    std::size_t keys, values, queries, sums;

    explicit AttentionTiles(const Attention &attention)
        : key_steps((attention.keys.rows + 31) / 32),
          depth_steps((attention.head_size + 31) / 32),
          strips((attention.value_size + kColumns - 1) / kColumns),
          keys(2 * key_steps * depth_steps),
          values(strips * key_steps),
          queries(2 * depth_steps),
          sums(2 * strips) {}

    std::size_t floats(std::size_t parts) const {
        return ((keys + values + queries) * parts + sums) * kTileLines * sizeof(Line) / sizeof(float);
    }
};

// What a tile unit does of attention.
struct TileAttention {
    // Whether all is finite that has to be: of what is not there are no parts, which products that may not be rounded are
    // made of.
    bool (*finite)(const Attention &);
    void (*attend)(const Attention &, float *scratch, float *out);  // `scratch` on a 64-byte boundary
};

extern const TileAttention kTileAttention;
#endif

}  // namespace sluice
