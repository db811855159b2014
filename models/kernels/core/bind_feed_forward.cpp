// Both products of a feed-forward block in one call.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include "bindings.h"
#include "feed_forward.h"
#include "norm_argument.h"

namespace sluice {
namespace {

nb::object feed_forward(nb::handle x_, const PackedMatrix &up, const PackedMatrix &down, nb::handle neurons_,
                        nb::handle shift_, const std::string &activation, nb::handle bias_, nb::handle residual_,
                        const NormTuple &norm_, nb::handle out, Threads *threads) {
    const Argument x = overlapping_rows(x_, "x");
    if (down.inputs != up.outputs)
        reject("down must have " + std::to_string(up.outputs) + " inputs, the neurons of up, not " +
               std::to_string(down.inputs));
    if (x.size(1) != up.inputs)
        reject("x must have " + std::to_string(up.inputs) + " channels, not " + std::to_string(x.size(1)));
    const ChannelList neurons = channel_list(neurons_, "neurons", up.outputs);
    const OptionalFloats shift = optional_floats(shift_, "shift", up.outputs, "neurons"),
                         bias = optional_floats(bias_, "bias", down.outputs, "outputs");
    const Argument residual = optional_array(residual_, "residual", {x.size(0), down.outputs});
    const NormArgument norm(norm_, up.inputs);
    Epilogue first, second;
    first.shift = shift.data;
    first.activation = activation_named(activation);
    second.shift = bias.data;
    second.residual = residual.is_valid() ? residual.floats() : nullptr;
    const Result y = result(out, {x.size(0), down.outputs});
    // A norm has read rows before the result is written over them.
    if (norm.get() && x.row_stride() == x.size(1)) y.check_apart_or_same(x, "x");
    else y.check_apart(x, "x");
    norm.check_apart(y);
    y.check_apart(neurons.argument, "neurons");
    y.check_apart(shift.argument, "shift");
    y.check_apart(bias.argument, "bias");
    y.check_apart(up.array, "the packed weights");
    y.check_apart(down.array, "the packed weights");
    y.check_apart_or_same(residual, "residual");
    {
        const nb::gil_scoped_release released;
        const InputRows rows{x.floats(), x.size(0), x.row_stride(), norm.get()};
        run_feed_forward(up, down, rows, neurons.channels, first, second, y.data, threads);
    }
    return y.object;
}

}  // namespace

void bind_feed_forward(nb::module_ &m) {
    using namespace nb::literals;

    m.def("feed_forward", &feed_forward, "x"_a.none(), "up"_a, "down"_a, nb::kw_only(), "neurons"_a = nb::none(),
          "shift"_a = nb::none(), "activation"_a = "none", "bias"_a = nb::none(), "residual"_a = nb::none(),
          "norm"_a = nb::none(), "out"_a = nb::none(), "threads"_a = nb::none());
}

}  // namespace sluice
