// The two halves of a layer of an encoder.
#include <cmath>
#include <numeric>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include "bindings.h"
#include "encoder.h"

namespace sluice {
namespace {

using GivenNorm = std::pair<nb::object, nb::object>;
using GivenProduct = std::pair<PackedMatrix, nb::object>;

BiasedProduct biased(const GivenProduct &given, const char *name, std::size_t outputs, std::size_t inputs) {
    const PackedMatrix &packed = given.first;
    if (packed.outputs != outputs || packed.inputs != inputs) {
        reject(std::string(name) + " must have " + std::to_string(outputs) + " outputs and " + std::to_string(inputs) +
               " inputs, not " + std::to_string(packed.outputs) + " and " + std::to_string(packed.inputs));
    }
    return {packed, shaped_array(given.second, name, {outputs})};
}

NormBehind norm_behind(const GivenNorm &given, std::size_t hidden, float epsilon) {
    if (!(epsilon >= 0)) reject("epsilon must be a number and not negative");
    return {shaped_array(given.first, "norm", {hidden}), shaped_array(given.second, "norm", {hidden}), epsilon};
}

EncoderAttention encoder_attention(const GivenProduct &qkv, const GivenProduct &output, const GivenNorm &norm,
                                   std::size_t heads, std::size_t head_size, float scale, float epsilon,
                                   const std::string &datatype) {
    const std::size_t hidden = qkv.first.inputs;
    if (heads == 0 || hidden % heads) reject("heads must divide the inputs of qkv");
    if (head_size == 0 || head_size > kMostChannels) reject("head_size must be at least 1 and at most 2^24");
    if (!std::isfinite(scale)) reject("scale must be a number");
    EncoderAttention made{biased(qkv, "qkv", 2 * heads * head_size + hidden, hidden),
                          biased(output, "output", hidden, hidden),
                          norm_behind(norm, hidden, epsilon),
                          heads,
                          head_size,
                          scale,
                          datatype_named(datatype) != Datatype::fp32,
                          std::vector<std::int32_t>(heads)};
    std::iota(made.key_heads.begin(), made.key_heads.end(), 0);
    return made;
}

EncoderFeedForward encoder_feed_forward(const GivenProduct &up, const GivenProduct &down, const GivenNorm &norm,
                                        float epsilon) {
    const std::size_t hidden = up.first.inputs, neurons = up.first.outputs;
    return {biased(up, "up", neurons, hidden), biased(down, "down", hidden, neurons), norm_behind(norm, hidden, epsilon)};
}

Argument rows_of(nb::handle x_, std::size_t hidden) {
    const Argument x = float_array(x_, "x", 2);
    if (x.size(1) != hidden)
        reject("x must have " + std::to_string(hidden) + " channels, not " + std::to_string(x.size(1)));
    return x;
}

nb::object attend_half_(const EncoderAttention &half, nb::handle x_, nb::handle qkv_, nb::handle bias_, nb::handle heads_,
                        nb::handle heads_bias_, Threads *threads) {
    const Argument x = rows_of(x_, half.hidden());
    const std::size_t positions = x.size(0);
    if (positions == 0) reject("x must have at least one row");
    if (heads_.is_none() != heads_bias_.is_none()) reject("heads and heads_bias must both be there, or neither");
    const ChannelList heads = channel_list(heads_, "heads", half.heads);
    const Argument heads_bias = optional_array(heads_bias_, "heads_bias", {half.hidden()});
    const ActiveHeads active{heads.channels, heads_bias.is_valid() ? heads_bias.floats() : nullptr};
    const Argument qkv = optional_array(qkv_, "qkv", {positions, half.qkv.packed.outputs});
    ScoreBias bias{nullptr, false};
    Argument given;
    if (!bias_.is_none()) {
        bias.of_keys = cpu_array(bias_, "bias", Items::float32).rank == 1;
        given = bias.of_keys ? shaped_array(bias_, "bias", {positions})
                             : shaped_array(bias_, "bias", {heads.channels.count, positions, positions});
        bias.values = given.floats();
    }
    const Result y = result(nb::none(), {positions, half.hidden()});
    {
        const nb::gil_scoped_release released;
        attend_half(half, x.floats(), positions, qkv.is_valid() ? qkv.floats() : nullptr, bias, active, y.data, threads);
    }
    return y.object;
}

nb::object feed_forward_half_(const EncoderFeedForward &half, nb::handle x_, Threads *threads) {
    const Argument x = rows_of(x_, half.hidden());
    const Result y = result(nb::none(), {x.size(0), half.hidden()});
    {
        const nb::gil_scoped_release released;
        feed_forward_half(half, x.floats(), x.size(0), y.data, threads);
    }
    return y.object;
}

}  // namespace

void bind_encoder(nb::module_ &m) {
    using namespace nb::literals;

    nb::class_<EncoderAttention>(m, "EncoderAttention");
    nb::class_<EncoderFeedForward>(m, "EncoderFeedForward");
    m.def("encoder_attention", &encoder_attention, "qkv"_a, "output"_a, "norm"_a, nb::kw_only(), "heads"_a, "head_size"_a,
          "scale"_a, "epsilon"_a, "datatype"_a = "fp32");
    m.def("encoder_feed_forward", &encoder_feed_forward, "up"_a, "down"_a, "norm"_a, nb::kw_only(), "epsilon"_a);
    m.def("attend_half", &attend_half_, "half"_a, "x"_a.none(), "qkv"_a = nb::none(), "bias"_a = nb::none(),
          "heads"_a = nb::none(), "heads_bias"_a = nb::none(), "threads"_a = nb::none());
    m.def("feed_forward_half", &feed_forward_half_, "half"_a, "x"_a.none(), "threads"_a = nb::none());
}

}  // namespace sluice
