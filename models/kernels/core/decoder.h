// One step of a decoder of the Llama family for a few sequences at once: a token each, all layers in one call.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "attention.h"
#include "rows.h"

namespace sluice {

// Of a layer, in order: on the inputs of qkv, on the heads, on the inputs of output and of gate, on the neurons, and on the
// inputs of down.
constexpr std::size_t kLayerGates = 6;

// Where the gate on heads is closed, all keys of a head are read every so many steps, to see how far it attends.
constexpr std::size_t kLookAgain = 8;

// Keys that a step at `length` positions has between the first block and the last one or two.
inline FarKeys far_keys(std::size_t length) {
    const std::size_t begin = kKeyBlock, end = length < kKeyBlock ? 0 : (length - kKeyBlock) / kKeyBlock * kKeyBlock;
    return {begin, std::max(begin, end)};
}

struct DecoderLayer {
    std::vector<float> attention_norm, query_norm, key_norm;  // the latter of one head, or empty
    RowWeights qkv, output;                                   // by input
    std::vector<float> norm;
    RowWeights gate, up, down;  // by input, by output, by input
    std::vector<float> neuron_norms;  // what a neuron's gate value is multiplied by to be its saliency; empty: no gate
    std::vector<float> care;          // see `decode`; empty: 0
    std::size_t window;               // positions that are seen, 0: all
};

struct Decoder {
    std::vector<DecoderLayer> layers;
    std::vector<float> norm;
    RowWeights turn;   // by output, what the head's inputs are turned by, or without outputs
    RowWeights head;   // by input
    RowWeights words;  // by output, of inputs that are not turned; or without outputs: no logit is computed again
    float margin;      // how far below the greatest logit the others are that are not, where the head's gate is closed
    std::size_t heads, key_heads, head_size;
    float epsilon;

    std::size_t hidden() const { return norm.size(); }
    std::size_t key_width() const { return key_heads * head_size; }
    std::size_t gates() const { return layers.size() * kLayerGates + 1; }
};

// One sequence's own.
struct DecoderRow {
    float *cache;          // [layers][keys, values][capacity][key width]
    float *far_shares;     // [layers][key heads]
    std::size_t capacity, length;
    const float *cosines, *sines;  // [head size / 2], of its position
    const float *thresholds;       // [gates]: of each layer's, and of the head; 0: dense
    std::int32_t *active;          // [gates + 1]: how many channels were, and how many logits were computed again
};

// x [rows][hidden] are the tokens' embeddings and become their last hidden states; logits are [rows][vocabulary].
// Thresholds hold for |x_k − mean_k| · ‖W_k‖ of the input of a linear layer (TEAL, Liu et al. 2024; WINA, Chen et al.
// 2025) and for |silu(gate_n)| · norm_n of a neuron (CATS, Lee et al. 2024), whose other half is not computed where it
// is skipped; of the others those are left out of down whose product is small. The weights of a channel that is active
// for some rows are read once for those. Where a matrix has coarse weights, what is not active is multiplied by those,
// and a row of which more than one channel in kShareBesideCoarse is active is dense there. All saliencies of a row's
// channels in a layer are multiplied by exp(care · normed input), which tells how much this token's matter beside others'. Under a
// threshold of its own the head gives a preview of the logits, of which the likely ones are computed again of all
// inputs.
// A head of keys and values is active where all of them are read. Its saliency is the largest share of the attention that
// its queries paid to far keys when these were last read, which the sequence keeps in `far_shares`; infinity before.
// Others attend to the first keys, which take what is not needed elsewhere (Xiao et al. 2024), and to the nearest.
void decode(const Decoder &decoder, float *x, DecoderRow *rows, std::size_t count, float *logits);

}  // namespace sluice
