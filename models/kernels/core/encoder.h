// The two halves of a layer of an encoder, each in one call: what Python does between the steps of a short text takes as
// long as some of them.
#pragma once

#include "packed.h"

namespace sluice {

// A product and its bias [outputs].
struct BiasedProduct {
    PackedMatrix packed;
    Argument bias;
};

// The norm behind a half, [hidden] each.
struct NormBehind {
    Argument weight, bias;
    float epsilon;
};

struct EncoderAttention {
    BiasedProduct qkv, output;
    NormBehind norm;
    std::size_t heads, head_size;  // columns of a head of queries and keys
    float scale;
    bool may_round;
    std::vector<std::int32_t> key_heads;  // each its own

    std::size_t hidden() const { return output.packed.outputs; }
};

struct EncoderFeedForward {
    BiasedProduct up, down;
    NormBehind norm;

    std::size_t hidden() const { return down.packed.outputs; }
};

// The heads that are attended with, and the output's bias [hidden] with what stands for the others; without a bias all
// of them, with that of the half.
struct ActiveHeads {
    Channels ids;
    const float *bias;
};

// What scores get: [positions] of keys, or [active heads][positions][positions]; null: nothing.
struct ScoreBias {
    const float *values;
    bool of_keys;
};

// out = norm(x + output(attention(qkv))), of rows x [positions][hidden]. `qkv` is their product with the half's weights, of
// all heads, where that is known; null: that of the active heads is made.
void attend_half(const EncoderAttention &half, const float *x, std::size_t positions, const float *qkv, ScoreBias bias,
                 ActiveHeads heads, float *out, Threads *threads);

// out = norm(x + down(gelu(up(x)))).
void feed_forward_half(const EncoderFeedForward &half, const float *x, std::size_t positions, float *out, Threads *threads);

}  // namespace sluice
