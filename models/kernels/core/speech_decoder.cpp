#include "speech_decoder.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "attention.h"
#include "memory.h"

namespace sluice {
namespace {

// One to a thread, so that calls share nothing and, once warm, allocate nothing.
struct Workspace {
    FloatBuffer normed, projected, mixed, neurons, picked;
    std::vector<std::int32_t> ids, heads;
};

Workspace &workspace() {
    thread_local Workspace kept;
    return kept;
}

struct Step {
    const SpeechDecoder &decoder;
    const Speaking &speaking;
    float *x;
    std::size_t tokens;
    Workspace &work;

    const InstructionSet &set() const { return **instruction_sets(); }

    void normalise(const LayerNorm &norm, float *to) const {
        set().normalise({x, nullptr, norm.weight, norm.bias, decoder.epsilon, tokens, decoder.hidden(), to});
    }

    const float *normalised(const LayerNorm &norm) const {
        float *to = work.normed.reserve(tokens * decoder.hidden());
        normalise(norm, to);
        return to;
    }

    void multiply(const Linear &linear, const float *from, Channels inputs, Channels outputs, const Epilogue &epilogue,
                  float *to) const {
        multiply_rows(linear, from, tokens, inputs, outputs, epilogue, to);
    }

    static void multiply_rows(const Linear &linear, const float *from, std::size_t rows, Channels inputs,
                              Channels outputs, const Epilogue &epilogue, float *to) {
        if (linear.reduced) {
            multiply_reduced(*linear.reduced, {from, rows, inputs.count}, inputs, outputs, epilogue, to);
        } else {
            multiply_matrix(*linear.set, linear.weights, {from, rows, inputs.count}, inputs, outputs, epilogue, to);
        }
    }

    static Channels all_inputs(const Linear &linear) { return {nullptr, linear.weights.inputs}; }
    static Channels all_outputs(const Linear &linear) { return {nullptr, linear.weights.outputs}; }

    // x += bias + W · values.
    void add(const Linear &linear, const float *values, Channels inputs, const float *bias) const {
        multiply(linear, values, inputs, all_outputs(linear), {nullptr, bias, nullptr, x}, x);
    }

    void add(const float *bias) const {
        for (std::size_t i = 0; i < tokens * decoder.hidden(); ++i) x[i] += bias[i % decoder.hidden()];
    }

    // Channels of heads in so many parts of as many channels as all heads have, side by side.
    Channels in_parts(Channels channels, std::size_t parts) const {
        if (!channels.ids) return {nullptr, parts * channels.count};
        work.ids.resize(parts * channels.count);
        for (std::size_t i = 0; i < work.ids.size(); ++i) {
            const std::size_t part = i / channels.count;
            work.ids[i] = channels.ids[i % channels.count] + static_cast<std::int32_t>(part * decoder.hidden());
        }
        return {work.ids.data(), work.ids.size()};
    }

    const float *attended(const Heads &queries, const Heads &keys, const Heads &values, std::size_t width,
                          const float *bias, bool causal) const {
        const std::size_t size = decoder.head_size, heads = width / size;
        work.heads.resize(heads);
        std::iota(work.heads.begin(), work.heads.end(), 0);
        float *mixed = work.mixed.reserve(tokens * width);
        attend(set(),
               {queries, keys, values, heads, size, size, work.heads.data(), bias,
                1.0f / std::sqrt(static_cast<float>(size)), causal, true},
               mixed);
        return mixed;
    }

    void attend_to_said(std::size_t index) const {
        const SpeechLayer &layer = decoder.layers[index];
        const AttendingHeads &active = speaking.layers[index].own;
        const std::size_t width = active.channels.count, hidden = decoder.hidden(), length = speaking.length;
        if (!width) return add(active.bias);
        float *qkv = work.projected.reserve(tokens * 3 * width);
        multiply(layer.qkv, normalised(layer.norm), all_inputs(layer.qkv), in_parts(active.channels, 3),
                 {nullptr, layer.qkv.bias}, qkv);
        float *keys = speaking.cache + 2 * index * speaking.capacity * hidden, *values = keys + speaking.capacity * hidden;
        for (std::size_t i = 0; i < tokens; ++i) {
            const float *row = qkv + i * 3 * width;
            std::copy_n(row + width, width, keys + (length + i) * hidden);
            std::copy_n(row + 2 * width, width, values + (length + i) * hidden);
        }
        const float *mixed = attended({qkv, tokens, 3 * width}, {keys, length + tokens, hidden},
                                      {values, length + tokens, hidden}, width, nullptr, true);
        show(index, 0, mixed, width);
        add(layer.output, mixed, active.channels, active.bias);
    }

    void attend_to_heard(std::size_t index) const {
        const SpeechLayer &layer = decoder.layers[index];
        const Hearing &hearing = speaking.layers[index];
        const AttendingHeads &active = hearing.other;
        const std::size_t width = active.channels.count;
        if (!width) return add(active.bias);
        float *queries = work.projected.reserve(tokens * width);
        multiply(layer.heard_query, normalised(layer.heard_norm), all_inputs(layer.heard_query), active.channels,
                 {nullptr, layer.heard_query.bias}, queries);
        const float *keys = hearing.keys_values;
        const float *mixed = attended({queries, tokens, width}, {keys, speaking.positions, 2 * width},
                                      {keys + width, speaking.positions, 2 * width}, width, speaking.bias, false);
        show(index, decoder.hidden(), mixed, width);
        add(layer.heard_output, mixed, active.channels, active.bias);
    }

    void feed_forward(std::size_t index) const {
        const SpeechLayer &layer = decoder.layers[index];
        const std::size_t neurons = decoder.neurons();
        const float threshold = speaking.thresholds[index];
        float *values = work.neurons.reserve(tokens * neurons);
        multiply(layer.up, normalised(layer.neurons_norm), all_inputs(layer.up), all_outputs(layer.up),
                 {nullptr, layer.up.bias, nullptr, nullptr, Activation::gelu}, values);
        show(index, 2 * decoder.hidden(), values, neurons);
        if (!layer.means || !(threshold > 0)) {
            speaking.active[index] = static_cast<std::int32_t>(tokens * neurons);
            return add(layer.down, values, {nullptr, neurons}, layer.down.bias);
        }
        speaking.active[index] = 0;
        work.ids.resize(neurons + 1);
        float *picked = work.picked.reserve(neurons);
        for (std::size_t i = 0; i < tokens; ++i) {
            const float *own = values + i * neurons;
            float *to = x + i * decoder.hidden();
            const Channels active{work.ids.data(), select_channels(set(), own, 1, neurons, layer.means, layer.norms,
                                                                   threshold, work.ids.data())};
            take_channels(set(), own, 1, neurons, layer.means, active, picked);
            multiply_rows(layer.down, picked, 1, active, all_outputs(layer.down), {nullptr, layer.folded, nullptr, to}, to);
            speaking.active[index] += static_cast<std::int32_t>(active.count);
        }
    }

    void show(std::size_t index, std::size_t at, const float *values, std::size_t width) const {
        if (!speaking.seen) return;
        for (std::size_t i = 0; i < tokens; ++i)
            std::copy_n(values + i * width, width, speaking.seen + (index * tokens + i) * decoder.seen() + at);
    }
};

}  // namespace

void speak(const SpeechDecoder &decoder, const Speaking &speaking, float *x, std::size_t tokens, float *states) {
    const Step step{decoder, speaking, x, tokens, workspace()};
    for (std::size_t i = 0; i < decoder.layers.size(); ++i) {
        step.attend_to_said(i);
        step.attend_to_heard(i);
        step.feed_forward(i);
    }
    step.normalise(decoder.norm, states);
}

}  // namespace sluice
