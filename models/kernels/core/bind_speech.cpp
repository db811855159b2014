// The decoder of a model of speech, and the words that it may say next.
#include <cmath>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "blocks.h"
#include "packed.h"
#include "row_arguments.h"
#include "speech_decoder.h"
#include "words.h"

namespace sluice {
namespace {

using GivenNorm = std::pair<nb::object, nb::object>;
using GivenLinear = std::pair<PackedMatrix, nb::object>;
using GivenGate = std::tuple<nb::object, nb::object, nb::object>;

// Arrays that are kept as they are, and not copied.
struct KeptNorm {
    Argument weight, bias;

    KeptNorm(const GivenNorm &given, const char *name, std::size_t hidden)
        : weight(shaped_array(given.first, name, {hidden})), bias(shaped_array(given.second, name, {hidden})) {}
    LayerNorm view() const { return {weight.floats(), bias.floats()}; }
};

struct KeptLinear {
    PackedMatrix packed;
    Argument bias;

    KeptLinear(const GivenLinear &given, const char *name, std::size_t outputs, std::size_t inputs)
        : packed(given.first), bias(shaped_array(given.second, name, {packed.outputs})) {
        if (packed.outputs != outputs || packed.inputs != inputs) {
            reject(std::string(name) + " must have " + std::to_string(outputs) + " outputs and " +
                   std::to_string(inputs) + " inputs");
        }
    }
    Linear view() const {
        const Weights weights{packed.reduced ? nullptr : packed.array.floats(), packed.outputs, packed.inputs, 1};
        return {packed.set, weights, packed.reduced.get(), bias.floats()};
    }
};

struct KeptLayer {
    std::vector<KeptNorm> norms;
    std::vector<KeptLinear> linears;
    std::vector<Argument> gate;

    std::size_t hidden() const { return linears[0].packed.inputs; }
    std::size_t neurons() const { return linears[4].packed.outputs; }
    SpeechLayer view() const {
        const auto gated = [&](std::size_t i) { return gate.empty() ? nullptr : gate[i].floats(); };
        return {norms[0].view(), linears[0].view(), linears[1].view(), norms[1].view(), linears[2].view(),
                linears[3].view(), norms[2].view(), linears[4].view(), linears[5].view(), gated(0), gated(1), gated(2)};
    }
};

struct KeptDecoder {
    std::vector<KeptLayer> layers;
    KeptNorm norm;
    SpeechDecoder decoder;
};

KeptLayer speech_layer(const GivenNorm &norm, const GivenLinear &qkv, const GivenLinear &output,
                       const GivenNorm &heard_norm, const GivenLinear &heard_query, const GivenLinear &heard_output,
                       const GivenNorm &neurons_norm, const GivenLinear &up, const GivenLinear &down,
                       const std::optional<GivenGate> &gate) {
    const std::size_t hidden = qkv.first.inputs, neurons = up.first.outputs;
    KeptLayer made{{{norm, "norm", hidden}, {heard_norm, "heard_norm", hidden}, {neurons_norm, "neurons_norm", hidden}},
                   {{qkv, "qkv", 3 * hidden, hidden},
                    {output, "output", hidden, hidden},
                    {heard_query, "heard_query", hidden, hidden},
                    {heard_output, "heard_output", hidden, hidden},
                    {up, "up", neurons, hidden},
                    {down, "down", hidden, neurons}},
                   {}};
    if (gate) {
        made.gate = {shaped_array(std::get<0>(*gate), "gate", {neurons}), shaped_array(std::get<1>(*gate), "gate", {neurons}),
                     shaped_array(std::get<2>(*gate), "gate", {hidden})};
    }
    return made;
}

KeptDecoder speech_decoder(const std::vector<KeptLayer> &layers, const GivenNorm &norm, std::size_t head_size,
                           float epsilon) {
    if (layers.empty()) reject("layers must hold at least one");
    const std::size_t hidden = layers.front().hidden(), neurons = layers.front().neurons();
    if (head_size == 0 || hidden % head_size) reject("head_size must divide the channels of norm");
    KeptDecoder made{layers, {norm, "norm", hidden}, {{}, {}, head_size, epsilon}};
    for (const KeptLayer &layer : made.layers) {
        if (layer.hidden() != hidden || layer.neurons() != neurons) reject("layers must all be of one size");
        made.decoder.layers.push_back(layer.view());
    }
    made.decoder.norm = made.norm.view();
    return made;
}

// What a call reads, which must stay where it is meanwhile.
struct KeptHeads {
    ChannelList list;
    Argument bias;

    KeptHeads(nb::handle channels, nb::handle bias_, const SpeechDecoder &decoder)
        : list(channel_list(channels, "heads", decoder.hidden())),
          bias(shaped_array(bias_, "heads", {decoder.hidden()})) {
        if (list.channels.count % decoder.head_size) reject("heads must be whole ones");
    }
    AttendingHeads view() const { return {list.channels, bias.floats()}; }
};

nb::object speak_(const KeptDecoder &kept, nb::handle x_, nb::handle cache_, std::size_t length,
                 const std::vector<std::pair<nb::object, nb::object>> &heads, const std::vector<nb::object> &heard,
                 nb::handle bias_, nb::handle thresholds_, nb::handle active_, nb::handle seen_) {
    const SpeechDecoder &decoder = kept.decoder;
    const std::size_t hidden = decoder.hidden(), layers = decoder.layers.size();
    const Argument given = float_array(x_, "x", 2);
    const std::size_t tokens = given.size(0);
    const Result x = result(x_, {tokens, hidden});
    const std::size_t capacity = float_array(cache_, "cache", 4).size(2);
    const Result cache = result(cache_, {layers, 2, capacity, hidden});
    if (length > capacity || tokens > capacity - length) reject("cache must have room for all tokens");
    if (heads.size() != 2 * layers) reject("heads must be of two attentions for each layer");
    if (heard.size() != layers) reject("heard must be of each layer");
    const std::size_t positions = float_array(heard[0], "heard", 2).size(0);
    if (positions == 0) reject("heard must have at least one position");
    const Argument bias = optional_array(bias_, "bias", {positions}),
                   thresholds = shaped_array(thresholds_, "thresholds", {layers}),
                   active = cpu_array(active_, "active", Items::int32, Layout::contiguous, Access::write);
    if (active.rank != 1 || active.size(0) != layers) reject("active must have the shape of thresholds");
    std::vector<KeptHeads> attending;
    for (const auto &[channels, own] : heads) attending.emplace_back(channels, own, decoder);
    std::vector<Argument> keys_values;
    Speaking speaking{{}, bias.is_valid() ? bias.floats() : nullptr, positions, cache.data, capacity, length,
                      thresholds.floats(), static_cast<std::int32_t *>(active.data), nullptr};
    for (std::size_t i = 0; i < layers; ++i) {
        const AttendingHeads own = attending[2 * i].view(), other = attending[2 * i + 1].view();
        keys_values.push_back(shaped_array(heard[i], "heard", {positions, 2 * other.channels.count}));
        speaking.layers.push_back({own, other, keys_values.back().floats()});
    }
    if (!seen_.is_none()) speaking.seen = result(seen_, {layers, tokens, decoder.seen()}).data;
    const Result states = result(nb::none(), {tokens, hidden});
    {
        const nb::gil_scoped_release released;
        speak(decoder, speaking, x.data, tokens, states.data);
    }
    return states.object;
}

std::pair<nb::object, nb::object> likely_words_(nb::handle state_, nb::handle seen_, const RowMatrix &preview_,
                                                const RowMatrix &words_, nb::handle possible_, float threshold,
                                                std::size_t most) {
    const RowWeights &preview = *preview_.weights, &words = *words_.weights;
    if (!preview.by_input) reject("preview must be packed by inputs");
    if (words.by_input) reject("words must be packed by outputs");
    if (preview.outputs != words.outputs) reject("preview must have as many outputs as words");
    if (!(threshold > 0 && threshold <= 1)) reject("threshold must be above 0 and at most 1");
    if (most == 0) reject("most must be at least 1");
    const Argument state = shaped_array(state_, "state", {1, words.inputs}),
                   seen = shaped_array(seen_, "seen", {1, preview.inputs}),
                   possible = shaped_array(possible_, "possible", {words.outputs});
    auto *ids = static_cast<std::int32_t *>(take_block(words.outputs * sizeof(std::int32_t)));
    const nb::capsule ids_owner(ids, give_block);
    auto *logits = static_cast<float *>(take_block(words.outputs * sizeof(float)));
    const nb::capsule logits_owner(logits, give_block);
    std::size_t count = 0;
    {
        const nb::gil_scoped_release released;
        count = likely_words(preview, seen.floats(), words, state.floats(), possible.floats(), -std::log(threshold), most,
                             ids, logits);
    }
    return {array_over(ids, Items::int32, 1, &count, ids_owner),
            array_over(logits, Items::float32, 1, &count, logits_owner)};
}

}  // namespace

void bind_speech(nb::module_ &m) {
    using namespace nb::literals;

    nb::class_<KeptLayer>(m, "SpeechLayer");
    nb::class_<KeptDecoder>(m, "SpeechDecoder");
    m.def("speech_layer", &speech_layer, nb::kw_only(), "norm"_a, "qkv"_a, "output"_a, "heard_norm"_a, "heard_query"_a,
          "heard_output"_a, "neurons_norm"_a, "up"_a, "down"_a, "gate"_a = nb::none());
    m.def("speech_decoder", &speech_decoder, "layers"_a, "norm"_a, nb::kw_only(), "head_size"_a, "epsilon"_a);
    m.def("speak", &speak_, "decoder"_a, "x"_a.none(), "cache"_a.none(), "length"_a, nb::kw_only(), "heads"_a, "heard"_a,
          "bias"_a = nb::none(), "thresholds"_a.none(), "active"_a, "seen"_a = nb::none());
    m.def("likely_words", &likely_words_, "state"_a.none(), "seen"_a.none(), "preview"_a, "words"_a, nb::kw_only(),
          "possible"_a.none(), "threshold"_a, "most"_a);
}

}  // namespace sluice
