// A step of a decoder.
#include <algorithm>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "decoder.h"
#include "row_arguments.h"

namespace sluice {
namespace {

const RowWeights &checked(const RowMatrix &matrix, const char *name, bool by_input, std::size_t inputs) {
    const RowWeights &w = *matrix.weights;
    if (w.by_input != by_input) reject(std::string(name) + " must be packed by " + (by_input ? "inputs" : "outputs"));
    if (w.inputs != inputs) {
        reject(std::string(name) + " must have " + std::to_string(inputs) + " inputs, not " + std::to_string(w.inputs));
    }
    return w;
}

DecoderLayer layer(nb::handle attention_norm_, const RowMatrix &qkv, nb::handle query_norm, nb::handle key_norm,
                   const RowMatrix &output, nb::handle norm, const RowMatrix &gate, const RowMatrix &up,
                   const RowMatrix &down, nb::handle neuron_norms, nb::handle care, std::size_t window) {
    const Argument attention_norm = float_array(attention_norm_, "attention_norm", 1);
    const std::size_t hidden = attention_norm.size(0), neurons = gate.weights->outputs;
    DecoderLayer made{};
    made.attention_norm = float_vector(attention_norm_, "attention_norm", hidden, "channels");
    made.qkv = checked(qkv, "qkv", true, hidden);
    if (query_norm.is_none() != key_norm.is_none()) reject("query_norm and key_norm must both be there, or neither");
    if (!query_norm.is_none()) {
        const std::size_t size = float_array(query_norm, "query_norm", 1).size(0);
        made.query_norm = float_vector(query_norm, "query_norm", size, "channels");
        made.key_norm = float_vector(key_norm, "key_norm", size, "channels");
    }
    made.output = checked(output, "output", true, output.weights->inputs);
    if (made.output.outputs != hidden) reject("output must have as many outputs as attention_norm has channels");
    made.norm = float_vector(norm, "norm", hidden, "channels");
    if (made.norm.empty()) reject("norm must be there");
    made.gate = checked(gate, "gate", true, hidden);
    made.up = checked(up, "up", false, hidden);
    made.down = checked(down, "down", true, neurons);
    if (made.up.outputs != neurons) reject("up must have as many outputs as gate");
    if (made.down.outputs != hidden) reject("down must have as many outputs as attention_norm has channels");
    made.neuron_norms = float_vector(neuron_norms, "neuron_norms", neurons, "neurons");
    made.care = float_vector(care, "care", hidden, "channels");
    made.window = window;
    return made;
}

Decoder decoder(const std::vector<DecoderLayer> &layers, nb::handle norm_, const RowMatrix &head, std::size_t heads,
                std::size_t key_heads, std::size_t head_size, float epsilon, const std::optional<RowMatrix> &words,
                float margin, const std::optional<RowMatrix> &turn) {
    const std::size_t hidden = float_array(norm_, "norm", 1).size(0);
    if (layers.empty()) reject("layers must hold at least one");
    if (heads == 0 || key_heads == 0 || heads % key_heads || head_size == 0 || head_size % 2)
        reject("heads must be a multiple of key_heads, and head_size even");
    const std::size_t width = (heads + 2 * key_heads) * head_size;
    for (const DecoderLayer &made : layers) {
        if (made.attention_norm.size() != hidden) reject("layers must have as many channels as norm");
        if (made.qkv.outputs != width) reject("qkv must have " + std::to_string(width) + " outputs");
        if (made.output.inputs != heads * head_size) reject("output must have heads · head_size inputs");
        if (!made.query_norm.empty() && made.query_norm.size() != head_size) reject("query_norm must be of one head");
    }
    if (words && words->weights->outputs != head.weights->outputs) reject("words must have as many outputs as head");
    if (turn && (turn->weights->outputs != hidden || turn->weights->datatype != Datatype::fp32))
        reject("turn must be of fp32 and have as many outputs as norm has channels");
    if (!(margin >= 0)) reject("margin must be at least 0");
    return {layers,
            float_vector(norm_, "norm", hidden, "channels"),
            turn ? checked(*turn, "turn", false, hidden) : RowWeights{},
            checked(head, "head", true, hidden),
            words ? checked(*words, "words", false, hidden) : RowWeights{},
            margin,
            heads,
            key_heads,
            head_size,
            epsilon};
}

nb::object decode_step(const Decoder &decoder, nb::handle x_, const std::vector<nb::object> &caches,
                       const std::vector<nb::object> &far_shares, const std::vector<std::size_t> &lengths,
                       nb::handle cosines_, nb::handle sines_, nb::handle thresholds_, nb::handle active_) {
    const std::size_t rows = caches.size(), layers = decoder.layers.size(), half = decoder.head_size / 2;
    const Result x = result(x_, {rows, decoder.hidden()});
    if (x_.is_none()) reject("x must be there");
    if (lengths.size() != rows) reject("lengths must be one for each cache");
    if (far_shares.size() != rows) reject("far_shares must be one for each cache");
    const Argument cosines = shaped_array(cosines_, "cosines", {rows, half}),
                   sines = shaped_array(sines_, "sines", {rows, half}),
                   thresholds = shaped_array(thresholds_, "thresholds", {rows, decoder.gates()});
    const Argument active = cpu_array(active_, "active", Items::int32, Layout::contiguous, Access::write);
    if (active.rank != 2 || active.size(0) != rows || active.size(1) != decoder.gates() + 1)
        reject("active must have a column more than thresholds");
    auto *counts = static_cast<std::int32_t *>(active.data);
    std::vector<Result> kept, shares;
    std::vector<DecoderRow> own;
    for (std::size_t r = 0; r < rows; ++r) {
        const Argument cache = float_array(caches[r], "caches", 4);
        const std::size_t capacity = cache.size(2);
        kept.push_back(result(caches[r], {layers, std::size_t{2}, capacity, decoder.key_width()}));
        shaped_array(far_shares[r], "far_shares", {layers, decoder.key_heads});
        shares.push_back(result(far_shares[r], {layers, decoder.key_heads}));
        if (lengths[r] >= capacity) reject("caches must have room for one more position");
        for (std::size_t other = 0; other < r; ++other) {
            if (own[other].cache == kept[r].data) reject("caches must be different ones");
            if (own[other].far_shares == shares[r].data) reject("far_shares must be different ones");
        }
        own.push_back({kept[r].data, shares[r].data, capacity, lengths[r], cosines.floats() + r * half, sines.floats() + r * half,
                       thresholds.floats() + r * decoder.gates(), counts + r * (decoder.gates() + 1)});
    }
    const Result logits = result(nb::none(), {rows, decoder.head.outputs});
    {
        const nb::gil_scoped_release released;
        decode(decoder, x.data, own.data(), rows, logits.data);
    }
    return logits.object;
}

}  // namespace

void bind_decoder(nb::module_ &m) {
    using namespace nb::literals;

    m.attr("KEY_BLOCK") = kKeyBlock;
    nb::class_<DecoderLayer>(m, "DecoderLayer");
    m.def("decoder_layer", &layer, nb::kw_only(), "attention_norm"_a.none(), "qkv"_a, "query_norm"_a = nb::none(),
          "key_norm"_a = nb::none(), "output"_a, "norm"_a.none(), "gate"_a, "up"_a, "down"_a,
          "neuron_norms"_a = nb::none(), "care"_a = nb::none(), "window"_a = 0);
    nb::class_<Decoder>(m, "Decoder").def_prop_ro("gates", &Decoder::gates);
    m.def("decoder", &decoder, "layers"_a, "norm"_a.none(), "head"_a, nb::kw_only(), "heads"_a, "key_heads"_a,
          "head_size"_a, "epsilon"_a, "words"_a = nb::none(), "margin"_a = 0.0f, "turn"_a = nb::none());
    m.def("decode_step", &decode_step, "decoder"_a, "x"_a.none(), "caches"_a, "far_shares"_a, "lengths"_a,
          "cosines"_a.none(), "sines"_a.none(), "thresholds"_a.none(), "active"_a);
}

}  // namespace sluice
