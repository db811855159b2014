// Softmax attention of one sequence, over the heads that are there.
#pragma once

#include "instruction_set.h"

namespace sluice {

// [rows][heads][head size], where the rows may lie apart.
struct Heads {
    const float *values;
    std::size_t rows, stride;  // floats from one row to the next
};

struct Attention {
    Heads queries, keys, values;
    std::size_t heads, head_size;
    const std::int32_t *key_heads;  // for each head of the queries, the one of keys and values that it reads
    const float *bias;              // [heads][queries][keys], null: none
    float scale;
    bool causal;  // query i, of n, sees keys up to keys.rows − n + i
};

// out[i][h] = Σ_j softmax_j(scale · q[i][h] · k[j][key_heads[h]] + bias[h][i][j]) v[j][key_heads[h]], as [queries][heads ·
// head size]. Softmax is taken a block of keys at a time (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022), so
// memory grows with the sequence and not with its square.
void attend(const InstructionSet &set, const Attention &attention, float *out);

}  // namespace sluice
