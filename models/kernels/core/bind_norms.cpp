// Layer norm and RMS norm, each with the residual before it.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "arguments.h"
#include "bindings.h"

namespace sluice {
namespace {

// `bias` is null for the RMS norm, which has none.
nb::object norm(nb::handle x_, nb::handle weight_, const nb::handle *bias_, float epsilon, nb::handle residual_,
                nb::handle out, const std::optional<std::string> &instruction_set) {
    const Argument x = float_array(x_, "x", 2);
    const std::size_t rows = x.size(0), channels = x.size(1);
    if (channels == 0) reject("x must have at least one channel");
    const Argument weight = float_array(weight_, "weight", 1);
    check_channels(weight, "weight", channels);
    Argument bias;
    if (bias_) {
        bias = float_array(*bias_, "bias", 1);
        check_channels(bias, "bias", channels);
    }
    if (!(epsilon >= 0)) reject("epsilon must be a number and not negative");
    const Argument residual = optional_array(residual_, "residual", {rows, channels});
    const InstructionSet &set = instruction_set_named(instruction_set);
    const Result y = result(out, {rows, channels});
    y.check_apart_or_same(x, "x");
    y.check_apart_or_same(residual, "residual");
    y.check_apart(weight, "weight");
    y.check_apart(bias, "bias");
    {
        const nb::gil_scoped_release released;
        set.normalise({x.floats(), residual.is_valid() ? residual.floats() : nullptr, weight.floats(),
                       bias_ ? bias.floats() : nullptr, epsilon, rows, channels, y.data});
    }
    return y.object;
}

}  // namespace

void bind_norms(nb::module_ &m) {
    using namespace nb::literals;

    m.def(
        "layer_norm",
        [](nb::handle x, nb::handle weight, nb::handle bias, float epsilon, nb::handle residual, nb::handle out,
           const std::optional<std::string> &instruction_set) {
            return norm(x, weight, &bias, epsilon, residual, out, instruction_set);
        },
        "x"_a.none(), "weight"_a.none(), "bias"_a.none(), "epsilon"_a, nb::kw_only(), "residual"_a = nb::none(),
        "out"_a = nb::none(), "instruction_set"_a = nb::none());
    m.def(
        "rms_norm",
        [](nb::handle x, nb::handle weight, float epsilon, nb::handle residual, nb::handle out,
           const std::optional<std::string> &instruction_set) {
            return norm(x, weight, nullptr, epsilon, residual, out, instruction_set);
        },
        "x"_a.none(), "weight"_a.none(), "epsilon"_a, nb::kw_only(), "residual"_a = nb::none(), "out"_a = nb::none(),
        "instruction_set"_a = nb::none());
}

}  // namespace sluice
