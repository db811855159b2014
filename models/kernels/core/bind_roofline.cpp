// What the core can do at most, for benchmarks.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "arguments.h"
#include "bindings.h"
#include "reduced_arguments.h"

namespace sluice {
namespace {

std::size_t accumulate(std::size_t rounds, const std::string &datatype_) {
    const Datatype datatype = datatype_named(datatype_);
    const auto run = datatype == Datatype::fp32 ? instruction_sets()[0]->accumulate : reduced_sets(datatype)[0]->accumulate;
    const nb::gil_scoped_release released;
    return run(rounds);
}

float read(nb::handle x_, std::size_t turns) {
    const Argument x = float_array(x_, "x", 1);
    const nb::gil_scoped_release released;
    float sum = 0;
    for (std::size_t turn = 0; turn < turns; ++turn) sum += instruction_sets()[0]->read(x.floats(), x.items);
    return sum;
}

}  // namespace

void bind_roofline(nb::module_ &m) {
    using namespace nb::literals;

    m.def("accumulate", &accumulate, "rounds"_a, "datatype"_a = "fp32");
    m.def("read", &read, "x"_a.none(), "turns"_a = 1);
}

}  // namespace sluice
