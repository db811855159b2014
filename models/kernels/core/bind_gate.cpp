// The gate, and the reductions around it.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include "arguments.h"
#include "bindings.h"
#include "gate.h"

namespace sluice {
namespace {

nb::object max_pool2x2(nb::handle x_, nb::handle out, const std::optional<std::string> &instruction_set) {
    const Argument x = float_array(x_, "x", 3);
    if (x.size(0) < 2 || x.size(1) < 2) reject("x must be at least 2x2");
    const InstructionSet &set = instruction_set_named(instruction_set);
    const Result y = result(out, {x.size(0) / 2, x.size(1) / 2, x.size(2)});
    y.check_apart(x, "x");
    {
        const nb::gil_scoped_release released;
        set.pool(x.floats(), x.size(0), x.size(1), x.size(2), y.data);
    }
    return y.object;
}

nb::object channel_means(nb::handle x_, nb::handle out, const std::optional<std::string> &instruction_set) {
    const Argument x = float_array(x_, "x", 3);
    if (x.size(0) == 0 || x.size(1) == 0) reject("x must have at least one position");
    const InstructionSet &set = instruction_set_named(instruction_set);
    const Result y = result(out, {x.size(2)});
    y.check_apart(x, "x");
    {
        const nb::gil_scoped_release released;
        set.means(x.floats(), x.size(0) * x.size(1), x.size(2), y.data);
    }
    return y.object;
}

nb::object squeeze_channels(nb::handle x_, std::size_t channels, nb::handle evidence_, nb::handle inputs_,
                            const std::optional<std::string> &instruction_set) {
    const Argument x = float_array(x_, "x", 3), evidence = float_array(evidence_, "evidence", 1);
    if (x.size(0) == 0 || x.size(1) == 0) reject("x must have at least one position");
    if (channels == 0 || channels > kMostChannels) reject("channels must be at least 1 and at most 2^24");
    const ChannelList inputs = channel_list(inputs_, "inputs", channels);
    if (x.size(2) != inputs.channels.count) {
        reject("x must have " + std::to_string(inputs.channels.count) + " channels, one for each active input, not " +
               std::to_string(x.size(2)));
    }
    if (channels == 1 && inputs.channels.count == 0) reject("x must have its only channel");
    const InstructionSet &set = instruction_set_named(instruction_set);
    const Result features = result(nb::none(), {channels + evidence.size(0)});
    {
        const nb::gil_scoped_release released;
        squeeze(set, x.floats(), x.size(0) * x.size(1), inputs.channels, channels, evidence.floats(), evidence.size(0),
                features.data);
    }
    return features.object;
}

std::tuple<nb::object, nb::object> bound_gate_channels(nb::handle features_, nb::handle projection_, nb::handle bias_,
                                                 float threshold, const std::optional<std::string> &instruction_set) {
    const Argument features = float_array(features_, "features", 1),
                   projection = float_array(projection_, "projection", 2);
    const std::size_t channels = projection.size(1);
    if (channels == 0) reject("projection must have at least one channel");
    if (projection.size(0) != features.size(0)) {
        reject("projection must have " + std::to_string(features.size(0)) + " rows, one for each feature, not " +
               std::to_string(projection.size(0)));
    }
    const Argument bias = float_array(bias_, "bias", 1);
    check_channels(bias, "bias", channels);
    if (threshold != threshold) reject("threshold must be a number");
    const InstructionSet &set = instruction_set_named(instruction_set);
    const NewVector<std::int32_t> active(channels);
    const NewVector<float> multipliers(channels);
    std::size_t count = 0;
    {
        const nb::gil_scoped_release released;
        count = gate_channels(set, features.floats(), features.size(0), projection.floats(), bias.floats(), channels,
                                threshold, active.items, multipliers.items);
    }
    return {active.array(count), multipliers.array(count)};
}

std::tuple<nb::object, nb::object> bound_select_channels(nb::handle x_, nb::handle mean_, nb::handle norms_,
                                                         float threshold,
                                                         const std::optional<std::string> &instruction_set) {
    const Argument x = float_array(x_, "x", 2);
    const std::size_t rows = x.size(0), channels = x.size(1);
    if (rows == 0) reject("x must have at least one row");
    const OptionalFloats mean = optional_floats(mean_, "mean", channels, "channels");
    const Argument norms = float_array(norms_, "norms", 1);
    check_channels(norms, "norms", channels);
    if (threshold != threshold) reject("threshold must be a number");
    const InstructionSet &set = instruction_set_named(instruction_set);
    const NewVector<std::int32_t> active(channels + 1);
    std::size_t count = 0;
    {
        const nb::gil_scoped_release released;
        count = select_channels(set, x.floats(), rows, channels, mean.data, norms.floats(), threshold, active.items);
    }
    const Result taken = result(nb::none(), {rows, count});
    {
        const nb::gil_scoped_release released;
        take_channels(set, x.floats(), rows, channels, mean.data, {active.items, count}, taken.data);
    }
    return {active.array(count), taken.object};
}

}  // namespace

void bind_gate(nb::module_ &m) {
    using namespace nb::literals;

    m.def("max_pool2x2", &max_pool2x2, "x"_a.none(), nb::kw_only(), "out"_a = nb::none(),
          "instruction_set"_a = nb::none());
    m.def("channel_means", &channel_means, "x"_a.none(), nb::kw_only(), "out"_a = nb::none(),
          "instruction_set"_a = nb::none());
    m.def("squeeze_channels", &squeeze_channels, "x"_a.none(), "channels"_a, "evidence"_a.none(), nb::kw_only(),
          "inputs"_a = nb::none(), "instruction_set"_a = nb::none());
    m.def("gate_channels", &bound_gate_channels, "features"_a.none(), "projection"_a.none(), "bias"_a.none(), "threshold"_a,
          nb::kw_only(), "instruction_set"_a = nb::none());
    m.def("select_channels", &bound_select_channels, "x"_a.none(), "mean"_a.none(), "norms"_a.none(), "threshold"_a,
          nb::kw_only(), "instruction_set"_a = nb::none());
}

}  // namespace sluice
