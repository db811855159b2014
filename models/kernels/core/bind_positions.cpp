// Joining positions that are nearly alike.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include "arguments.h"
#include "bindings.h"
#include "positions.h"

namespace sluice {
namespace {

// Which row each joins: `left` of them stay.
struct Matched {
    NewVector<std::int32_t> target;
    std::size_t left;
};

Matched matched(const Argument &x, float threshold, const std::optional<std::string> &instruction_set) {
    if (threshold != threshold) reject("threshold must be a number");
    const InstructionSet &set = instruction_set_named(instruction_set);
    Matched found{NewVector<std::int32_t>(x.size(0) + 1), 0};
    const nb::gil_scoped_release released;
    found.left = match_rows(set, x.floats(), x.size(0), x.size(1), threshold, found.target.items);
    return found;
}

nb::object match_positions(nb::handle x_, float threshold, const std::optional<std::string> &instruction_set) {
    const Argument x = float_array(x_, "x", 2);
    return matched(x, threshold, instruction_set).target.array(x.size(0));
}

std::tuple<nb::object, nb::object> merge_positions(nb::handle x_, nb::handle sizes_, float threshold,
                                                   const std::optional<std::string> &instruction_set) {
    const Argument x = float_array(x_, "x", 2), sizes = float_array(sizes_, "sizes", 1);
    if (sizes.size(0) != x.size(0)) {
        reject("sizes must have one value for each of the " + std::to_string(x.size(0)) + " rows, not " +
               std::to_string(sizes.size(0)));
    }
    const Matched found = matched(x, threshold, instruction_set);
    if (found.left == x.size(0)) return {nb::borrow(x_), nb::borrow(sizes_)};
    const Result merged = result(nb::none(), {found.left, x.size(1)}), merged_sizes = result(nb::none(), {found.left});
    const Rows rows{x.floats(), sizes.floats(), x.size(0), x.size(1)};
    {
        const nb::gil_scoped_release released;
        join_rows(instruction_set_named(instruction_set), rows, found.target.items, merged.data, merged_sizes.data);
    }
    return {merged.object, merged_sizes.object};
}

}  // namespace

void bind_positions(nb::module_ &m) {
    using namespace nb::literals;

    m.def("match_positions", &match_positions, "x"_a.none(), "threshold"_a, nb::kw_only(),
          "instruction_set"_a = nb::none());
    m.def("merge_positions", &merge_positions, "x"_a.none(), "sizes"_a.none(), "threshold"_a, nb::kw_only(),
          "instruction_set"_a = nb::none());
}

}  // namespace sluice
