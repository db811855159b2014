// Joining positions that are nearly alike.
#include <memory>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include "arguments.h"
#include "bindings.h"
#include "positions.h"

namespace sluice {
namespace {

std::tuple<nb::object, nb::object> merge_positions(nb::handle x_, nb::handle sizes_, float threshold,
                                                   const std::optional<std::string> &instruction_set) {
    const Argument x = float_array(x_, "x", 2), sizes = float_array(sizes_, "sizes", 1);
    if (sizes.size(0) != x.size(0)) {
        reject("sizes must have one value for each of the " + std::to_string(x.size(0)) + " rows, not " +
               std::to_string(sizes.size(0)));
    }
    if (threshold != threshold) reject("threshold must be a number");
    const InstructionSet &set = instruction_set_named(instruction_set);
    const Rows rows{x.floats(), sizes.floats(), x.size(0), x.size(1)};
    thread_local std::vector<std::int32_t> target;
    std::size_t left;
    {
        const nb::gil_scoped_release released;
        left = match_rows(set, rows, threshold, target);
    }
    if (left == rows.count) return {nb::borrow(x_), nb::borrow(sizes_)};
    const Result merged = result(nb::none(), {left, rows.width}), merged_sizes = result(nb::none(), {left});
    {
        const nb::gil_scoped_release released;
        join_rows(set, rows, target, merged.data, merged_sizes.data);
    }
    return {merged.object, merged_sizes.object};
}

}  // namespace

void bind_positions(nb::module_ &m) {
    using namespace nb::literals;

    m.def("merge_positions", &merge_positions, "x"_a.none(), "sizes"_a.none(), "threshold"_a, nb::kw_only(),
          "instruction_set"_a = nb::none());
}

}  // namespace sluice
