// Coarse copies of layers for a few rows.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include <nanobind/ndarray.h>

#include "bindings.h"
#include "row_arguments.h"

namespace sluice {
namespace {

void check_sizes(std::size_t outputs, std::size_t inputs) {
    if (outputs == 0 || inputs == 0) reject("weight must have at least one output and one input");
    if (outputs > kMostChannels || inputs > kMostChannels) reject("weight must have at most 2^24 outputs and inputs");
}

// The order in which errors are made up for, each input once, and by how much.
struct MakingUpArguments {
    Argument order, factor;
    MakingUp making_up{};
};

MakingUpArguments making_up_of(nb::handle order, nb::handle factor, std::size_t inputs) {
    if (order.is_none() != factor.is_none()) reject("order and factor must be given together");
    MakingUpArguments made;
    if (order.is_none()) return made;
    made.order = cpu_array(order, "order", Items::int32);
    made.factor = shaped_array(factor, "factor", {inputs, inputs});
    const std::int32_t *ids = made.order.integers();
    std::vector<std::int32_t> sorted(ids, ids + made.order.items), all(inputs);
    std::sort(sorted.begin(), sorted.end());
    std::iota(all.begin(), all.end(), 0);
    if (sorted != all) reject("order must have each input once");
    const float *factors = made.factor.floats();
    for (std::size_t i = 0; i < inputs; ++i) {
        const float *own = factors + i * inputs;
        if (!std::all_of(own, own + i + 1, [](float value) { return std::isfinite(value); }) || !(own[i] > 0))
            reject("factor must be finite, and above 0 on its diagonal");
    }
    made.making_up = {ids, factors};
    return made;
}

CoarseMatrix pack(nb::handle weight_, nb::handle order, nb::handle factor) {
    const Argument weight = float_array(weight_, "weight", 2);
    const std::size_t outputs = weight.size(0), inputs = weight.size(1);
    check_sizes(outputs, inputs);
    const MakingUpArguments given = making_up_of(order, factor, inputs);
    const float *values = weight.floats();
    std::shared_ptr<CoarseWeights> packed;
    {
        const nb::gil_scoped_release released;
        if (std::all_of(values, values + outputs * inputs, [](float value) { return std::isfinite(value); }))
            packed = std::make_shared<CoarseWeights>(pack_coarse(values, outputs, inputs, given.making_up));
    }
    if (!packed) reject("weight must be finite");
    return {packed};
}

// What `words` of one gave.
CoarseMatrix repack(nb::handle words_, std::size_t outputs, std::size_t inputs) {
    check_sizes(outputs, inputs);
    const Argument words = cpu_array(words_, "words", Items::int32);
    const std::size_t wanted = CoarseWeights{outputs, inputs, nullptr}.bytes() / 4;
    if (words.rank != 1 || words.items != wanted)
        reject("words must have the shape [" + std::to_string(wanted) + "] of this layer");
    auto packed = std::make_shared<CoarseWeights>(empty_coarse(outputs, inputs));
    {
        const nb::gil_scoped_release released;
        std::memcpy(packed->data.get(), words.data, packed->bytes());
    }
    return {packed};
}

nb::object words_of(nb::handle self) {
    const CoarseWeights &w = *nb::cast<const CoarseMatrix &>(self).weights;
    const std::size_t shape[] = {w.bytes() / 4};
    return nb::cast(nb::ndarray<nb::numpy, const std::int32_t>(w.data.get(), 1, shape, self));
}

nb::object weight_of(const CoarseMatrix &matrix) {
    const Result made = result(nb::none(), {matrix.weights->outputs, matrix.weights->inputs});
    const nb::gil_scoped_release released;
    unpack_coarse(*matrix.weights, made.data);
    return made.object;
}

}  // namespace

void bind_coarse(nb::module_ &m) {
    using namespace nb::literals;

    nb::class_<CoarseMatrix>(m, "CoarseMatrix")
        .def_prop_ro("outputs", [](const CoarseMatrix &p) { return p.weights->outputs; })
        .def_prop_ro("inputs", [](const CoarseMatrix &p) { return p.weights->inputs; })
        .def_prop_ro("nbytes", [](const CoarseMatrix &p) { return p.weights->bytes(); })
        .def_prop_ro("words", &words_of)
        .def_prop_ro("weight", &weight_of);
    m.def("pack_coarse", &pack, "weight"_a.none(), nb::kw_only(), "order"_a = nb::none(), "factor"_a = nb::none());
    m.def("repack_coarse", &repack, "words"_a.none(), "outputs"_a, "inputs"_a);
}

}  // namespace sluice
