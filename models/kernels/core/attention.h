// Softmax attention of one sequence, over the heads that are there.
#pragma once

#include "reduced_set.h"

namespace sluice {

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

    // Those of a query of a head.
    const float *bias_of(std::size_t head, std::size_t query) const {
        return bias && !one_bias ? bias + (head * queries.rows + query) * keys.rows : bias;
    }
};

// out[i][h] = Σ_j softmax_j(scale · q[i][h] · k[j][key_heads[h]] + bias[h][i][j]) v[j][key_heads[h]], as [queries][heads ·
// value size]. Softmax is taken a block of keys at a time (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022), so
// memory grows with the sequence and not with its square. Where they may be rounded,
// more than a few queries go to the tile unit.
void attend(const InstructionSet &set, const Attention &attention, float *out);

#if defined(SLUICE_AMX)
// What attend_on_tiles() needs beside its arguments, in tiles of 1 KiB: of one head, and for a block of queries. All but
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

// `scratch` on a 64-byte boundary. False, and nothing done, where products may not be rounded and something is not finite.
bool attend_on_tiles(const Attention &attention, float *scratch, float *out);
#endif

}  // namespace sluice
