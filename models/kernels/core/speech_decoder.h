// Tokens of one text through all layers of a decoder that hears, Whisper's, in one call.
#pragma once

#include <vector>

#include "gate.h"
#include "reduced.h"

namespace sluice {

// Weights that somebody else keeps, and the bias of their product.
struct Linear {
    const InstructionSet *set;
    Weights weights;                // packed: of fp32
    const ReducedWeights *reduced;  // of bf16 and int8; null: fp32
    const float *bias;              // [outputs]
};

struct LayerNorm {
    const float *weight, *bias;  // [hidden]
};

// In the order of their use. `heard` is what attends to the encoder.
struct SpeechLayer {
    LayerNorm norm;
    Linear qkv, output;
    LayerNorm heard_norm;
    Linear heard_query, heard_output;
    LayerNorm neurons_norm;
    Linear up, down;
    // Of the gate on neurons, see select_channels(): the bias of down with the means folded in. Null: no gate.
    const float *means, *norms, *folded;
};

struct SpeechDecoder {
    std::vector<SpeechLayer> layers;
    LayerNorm norm;
    std::size_t head_size;
    float epsilon;

    std::size_t hidden() const { return layers.front().output.weights.outputs; }
    std::size_t neurons() const { return layers.front().up.weights.outputs; }
    // Floats of one layer and token in Speaking::seen.
    std::size_t seen() const { return 2 * hidden() + neurons(); }
};

// Whole heads of one attention, and the bias of its output with what the others are left at.
struct AttendingHeads {
    Channels channels;
    const float *bias;
};

// Of a layer: which heads attend to what was said and to what was heard, and the keys and values of the latter,
// [positions][2][channels of the heads].
struct Hearing {
    AttendingHeads own, other;
    const float *keys_values;
};

// One text's own.
struct Speaking {
    std::vector<Hearing> layers;
    const float *bias;      // of what was heard, [positions], see Attention; null: none
    std::size_t positions;
    float *cache;           // of what was said, [layers][keys, values][capacity][hidden]
    std::size_t capacity, length;
    const float *thresholds;  // [layers], of the gates on neurons; 0: dense
    std::int32_t *active;     // [layers], how many neurons were, of all tokens together
    float *seen;              // [layers][tokens][seen()]: what both attentions give and the neurons; null: not asked for
};

// x [tokens][hidden] are what comes in behind the `length` tokens of the text, and becomes what the last layer gives;
// `states` is that normalised. Neurons are selected for each token by itself.
void speak(const SpeechDecoder &decoder, const Speaking &speaking, float *x, std::size_t tokens, float *states);

}  // namespace sluice
