// Both products of a feed-forward block in one call.
#include <algorithm>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include "bindings.h"
#include "norm_argument.h"
#include "packed.h"

namespace sluice {
namespace {

// Rows whose neurons are made and summed before those of others: so many stay in the second cache.
constexpr std::size_t kRowsTogether = 288;

// With fewer, threads share the outputs of each product and not the rows.
constexpr std::size_t kSharedRows = 64;

bool is_bf16(const PackedMatrix &packed) { return packed.reduced && packed.reduced->datatype == Datatype::bf16; }

void in_two_calls(const PackedMatrix &up, const PackedMatrix &down, const InputRows &x, Channels neurons, const Epilogue &first,
                  Epilogue second, float *out, Threads *threads) {
    thread_local FloatBuffer kept;
    float *values = kept.reserve(std::min(kRowsTogether, x.count) * neurons.count);
    for (std::size_t row = 0; row < x.count; row += kRowsTogether, out += kRowsTogether * down.outputs) {
        const std::size_t count = std::min(kRowsTogether, x.count - row);
        multiply_rows(up, x.part(row, count), {nullptr, up.inputs}, neurons, first, values, threads);
        multiply_rows(down, {values, count, neurons.count}, neurons, {nullptr, down.outputs}, second, out, threads);
        if (second.residual) second.residual += kRowsTogether * down.outputs;
    }
}

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
        const bool shares_rows = !threads || threads->count() == 1 || rows.count >= kSharedRows;
        if (!is_bf16(up) || !is_bf16(down) || !shares_rows ||
            !feed_forward_reduced(*up.reduced, *down.reduced, rows, neurons.channels, first, second, y.data, threads)) {
            const RowsForProduct normed(rows, up.inputs, false);
            in_two_calls(up, down, normed.rows(), neurons.channels, first, second, y.data, threads);
        }
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
