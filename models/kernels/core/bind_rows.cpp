// Matrices for a few rows of activations.
#include <algorithm>
#include <cmath>

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "bindings.h"
#include "reduced_arguments.h"
#include "row_arguments.h"
#include "weight_memory.h"

namespace sluice {

std::vector<float> float_vector(nb::handle value, const char *name, std::size_t length, const char *what) {
    const OptionalFloats floats = optional_floats(value, name, length, what);
    return floats.data ? std::vector<float>(floats.data, floats.data + length) : std::vector<float>();
}

nb::object copied(const std::vector<float> &values) {
    const Result made = result(nb::none(), {values.size()});
    std::copy(values.begin(), values.end(), made.data);
    return made.object;
}

namespace {

void check_layer(std::size_t outputs, std::size_t inputs, const std::string &by) {
    if (outputs == 0 || inputs == 0) reject("weight must have at least one output and one input");
    if (outputs > kMostChannels || inputs > kMostChannels) reject("weight must have at most 2^24 outputs and inputs");
    if (by != "inputs" && by != "outputs") reject("by must be inputs or outputs, not '" + by + "'");
}

RowMatrix pack(nb::handle weight_, const std::string &datatype_, const std::string &by, nb::handle bias,
               const std::optional<std::string> &instruction_set) {
    const Argument weight = float_array(weight_, "weight", 2);
    const std::size_t outputs = weight.size(0), inputs = weight.size(1);
    check_layer(outputs, inputs, by);
    const Datatype datatype = datatype_named(datatype_);
    const InstructionSet &floats = instruction_set_named(instruction_set);
    std::vector<float> added = float_vector(bias, "bias", outputs, "outputs");
    bool finite = true;
    std::shared_ptr<RowWeights> packed;
    {
        const nb::gil_scoped_release released;
        for (std::size_t i = 0; i < outputs * inputs && datatype != Datatype::fp32; ++i)
            finite = finite && std::isfinite(weight.floats()[i]);
        if (finite) {
            packed = std::make_shared<RowWeights>(pack_rows(weight.floats(), outputs, inputs, datatype, by == "inputs",
                                                            row_set_of(floats), floats));
        }
    }
    if (!finite) reject("weight must be finite for " + datatype_);
    packed->bias = std::move(added);
    return {packed};
}

// A layer whose weights were packed before: what `words`, `norms` and `scales` of it gave.
RowMatrix repack(nb::handle words_, std::size_t outputs, std::size_t inputs, const std::string &datatype_,
                 const std::string &by, nb::handle norms, nb::handle scales, nb::handle bias,
                 const std::optional<std::string> &instruction_set) {
    check_layer(outputs, inputs, by);
    const Argument words = cpu_array(words_, "words", Items::int32);
    const Datatype datatype = datatype_named(datatype_);
    const InstructionSet &floats = instruction_set_named(instruction_set);
    auto packed = std::make_shared<RowWeights>(
        empty_rows(outputs, inputs, datatype, by == "inputs", row_set_of(floats), floats));
    if (words.rank != 1 || words.items != packed->words())
        reject("words must have the shape [" + std::to_string(packed->words()) + "] of this layer");
    packed->norms = float_vector(norms, "norms", inputs, "inputs");
    packed->scales = float_vector(scales, "scales", outputs, "outputs");
    packed->bias = float_vector(bias, "bias", outputs, "outputs");
    if (packed->norms.empty()) reject("norms must not be None");
    if (packed->scales.empty() == (datatype == Datatype::int8)) reject("scales belong to int8, and to nothing else");
    {
        const nb::gil_scoped_release released;
        std::memcpy(packed->data.get(), words.data, packed->bytes());
    }
    return {packed};
}

nb::object words_of(nb::handle self) {
    const RowWeights &w = *nb::cast<const RowMatrix &>(self).weights;
    const std::size_t shape[] = {w.words()};
    return nb::cast(nb::ndarray<nb::numpy, const std::int32_t>(w.data.get(), 1, shape, self));
}

// [rows][outputs] of x [rows][read inputs]: of a matrix by input, the weights of the others are not read.
void multiply(const RowWeights &w, const float *x, std::size_t rows, Channels read, const float *residual, float *out) {
    if (rows > kFewRows) return multiply_many(w, x, rows, read, {nullptr, w.outputs}, residual, out);
    // A matrix by output reads whole groups of inputs.
    const std::size_t width = w.by_input ? read.count : w.groups * kGroup, padded = w.padded_outputs();
    std::vector<float> values(width == read.count ? 0 : rows * width), sums(rows * padded);
    const float *from[kFewRows];
    float *to[kFewRows];
    for (std::size_t r = 0; r < rows; ++r) {
        from[r] = x + r * read.count;
        to[r] = sums.data() + r * padded;
        if (values.empty()) continue;
        from[r] = values.data() + r * width;
        std::copy_n(x + r * read.count, read.count, values.data() + r * width);
    }
    sum_few(w, from, rows, read, {nullptr, w.outputs}, to);
    for (std::size_t r = 0; r < rows; ++r) {
        for (std::size_t j = 0; j < w.outputs; ++j) {
            const std::size_t at = r * w.outputs + j;
            out[at] = to[r][j] * (w.scales.empty() ? 1.0f : w.scales[j]) + (w.bias.empty() ? 0.0f : w.bias[j]) +
                      (residual ? residual[at] : 0.0f);
        }
    }
}

// [rows][active outputs] of x [rows][inputs] and a matrix by output: the weights of the others are not read.
void multiply_active(const RowWeights &w, const float *x, std::size_t rows, Channels active, float *out) {
    if (rows > kFewRows) return multiply_many(w, x, rows, {nullptr, w.inputs}, active, nullptr, out);
    const std::size_t width = w.groups * kGroup;
    std::vector<float> values(rows * width);
    const float *from[kFewRows];
    float *to[kFewRows];
    for (std::size_t r = 0; r < rows; ++r) {
        std::copy_n(x + r * w.inputs, w.inputs, values.data() + r * width);
        from[r] = values.data() + r * width;
        to[r] = out + r * active.count;
    }
    sum_few(w, from, rows, {nullptr, w.inputs}, active, to);
    if (w.scales.empty() && w.bias.empty()) return;
    for (std::size_t at = 0; at < rows * active.count; ++at) {
        const std::int32_t channel = active.ids[at % active.count];
        out[at] = out[at] * (w.scales.empty() ? 1.0f : w.scales[channel]) + (w.bias.empty() ? 0.0f : w.bias[channel]);
    }
}

// y [rows][outputs] += C · x [rows][inputs].
void add_coarse_part(const RowWeights &w, const float *x, std::size_t rows, float *y) {
    for (std::size_t first = 0; first < rows; first += kFewRows) {
        const std::size_t some = std::min(kFewRows, rows - first);
        const float *from[kFewRows];
        float *to[kFewRows];
        for (std::size_t r = 0; r < some; ++r) {
            from[r] = x + (first + r) * w.inputs;
            to[r] = y + (first + r) * w.outputs;
        }
        add_coarse(*w.coarse, *w.set, from, some, to);
    }
}

nb::object row_matmul(nb::handle x_, const RowMatrix &matrix, nb::handle inputs_, nb::handle outputs_,
                      const std::string &activation, nb::handle residual_, nb::handle coarse_, nb::handle out) {
    const RowWeights &w = *matrix.weights;
    if (!coarse_.is_none()) {
        if (!w.coarse) reject("coarse must be None for a matrix without coarse weights");
        if (!outputs_.is_none()) reject("coarse must be None where there are outputs");
    }
    const Argument x = float_array(x_, "x", 2);
    const ChannelList read = channel_list(inputs_, "inputs", w.inputs);
    if (x.size(1) != read.channels.count)
        reject("x must have " + std::to_string(read.channels.count) + " channels, not " + std::to_string(x.size(1)));
    const Argument left = optional_array(coarse_, "coarse", {x.size(0), w.inputs});
    if (read.channels.ids) {
        if (!w.by_input) reject("inputs must be None unless the matrix is packed by inputs");
        if (activation != "none" || !residual_.is_none() || !outputs_.is_none())
            reject("inputs must be None where there are outputs, an activation or a residual");
        const Result y = result(out, {x.size(0), w.outputs});
        y.check_apart(x, "x");
        y.check_apart(left, "coarse");
        y.check_apart(read.argument, "inputs");
        const nb::gil_scoped_release released;
        multiply(w, x.floats(), x.size(0), read.channels, nullptr, y.data);
        if (left.is_valid()) add_coarse_part(w, left.floats(), x.size(0), y.data);
        return y.object;
    }
    if (!outputs_.is_none()) {
        if (w.by_input) reject("outputs must be None unless the matrix is packed by outputs");
        if (activation != "none" || !residual_.is_none())
            reject("outputs must be None where there is an activation or a residual");
        const ChannelList active = channel_list(outputs_, "outputs", w.outputs);
        const Result y = result(out, {x.size(0), active.channels.count});
        y.check_apart(x, "x");
        y.check_apart(active.argument, "outputs");
        if (active.channels.ids) {
            const nb::gil_scoped_release released;
            multiply_active(w, x.floats(), x.size(0), active.channels, y.data);
            return y.object;
        }
    }
    if (activation != "none" && activation != "silu") reject("activation must be none or silu, not '" + activation + "'");
    if (activation == "silu" && !residual_.is_none()) reject("residual must be None where there is an activation");
    const Argument residual = optional_array(residual_, "residual", {x.size(0), w.outputs});
    const Result y = result(out, {x.size(0), w.outputs});
    y.check_apart(x, "x");
    y.check_apart(left, "coarse");
    y.check_apart_or_same(residual, "residual");
    {
        const nb::gil_scoped_release released;
        multiply(w, x.floats(), x.size(0), read.channels, residual.is_valid() ? residual.floats() : nullptr, y.data);
        if (left.is_valid()) add_coarse_part(w, left.floats(), x.size(0), y.data);
        if (activation == "silu") w.set->silu(y.data, x.size(0) * w.outputs);
    }
    return y.object;
}

// The same weights with the inputs' means, what those add to the result, and other norms if there are some.
RowMatrix with_means(const RowMatrix &matrix, nb::handle means_, nb::handle norms) {
    auto made = std::make_shared<RowWeights>(*matrix.weights);
    if (!norms.is_none()) made->norms = float_vector(norms, "norms", made->inputs, "inputs");
    made->means = float_vector(means_, "means", made->inputs, "inputs");
    if (made->means.empty()) {
        made->folded.clear();
        return {made};
    }
    made->folded.resize(made->outputs);
    multiply(*made, made->means.data(), 1, {nullptr, made->inputs}, nullptr, made->folded.data());
    return {made};
}

// The same weights with coarse ones for the inputs that are not active.
RowMatrix with_coarse(const RowMatrix &matrix, const CoarseMatrix &coarse) {
    auto made = std::make_shared<RowWeights>(*matrix.weights);
    if (coarse.weights->outputs != made->outputs || coarse.weights->inputs != made->inputs)
        reject("coarse must have as many outputs and inputs as the matrix");
    made->coarse = coarse.weights;
    return {made};
}

}  // namespace

void bind_rows(nb::module_ &m) {
    using namespace nb::literals;

    nb::class_<RowMatrix>(m, "RowMatrix")
        .def_prop_ro("outputs", [](const RowMatrix &p) { return p.weights->outputs; })
        .def_prop_ro("inputs", [](const RowMatrix &p) { return p.weights->inputs; })
        .def_prop_ro("datatype", [](const RowMatrix &p) { return name_of(p.weights->datatype); })
        .def_prop_ro("by", [](const RowMatrix &p) { return p.weights->by_input ? "inputs" : "outputs"; })
        .def_prop_ro("instruction_set", [](const RowMatrix &p) { return p.weights->floats->name; })
        .def_prop_ro("nbytes", [](const RowMatrix &p) { return p.weights->bytes(); })
        .def_prop_ro("norms", [](const RowMatrix &p) { return copied(p.weights->norms); })
        .def_prop_ro("scales",
                     [](const RowMatrix &p) { return p.weights->scales.empty() ? nb::none() : copied(p.weights->scales); })
        .def_prop_ro("words", &words_of)
        .def_prop_ro("coarse",
                     [](const RowMatrix &p) {
                         return p.weights->coarse ? nb::cast(CoarseMatrix{p.weights->coarse}) : nb::none();
                     })
        .def("with_means", &with_means, "means"_a.none(), "norms"_a = nb::none())
        .def("with_coarse", &with_coarse, "coarse"_a);
    m.def("pack_rows", &pack, "weight"_a.none(), "datatype"_a = "fp32", "by"_a = "inputs", nb::kw_only(),
          "bias"_a = nb::none(), "instruction_set"_a = nb::none());
    m.attr("ROW_LAYOUT") = kRowLayout;
    m.def("release_memory", &release_memory, nb::call_guard<nb::gil_scoped_release>());
    m.attr("SHARE_BESIDE_COARSE") = 1.0 / kShareBesideCoarse;
    m.def("repack_rows", &repack, "words"_a.none(), "outputs"_a, "inputs"_a, "datatype"_a, "by"_a, nb::kw_only(),
          "norms"_a.none(), "scales"_a.none(), "bias"_a = nb::none(), "instruction_set"_a = nb::none());
    m.def("row_matmul", &row_matmul, "x"_a.none(), "matrix"_a, nb::kw_only(), "inputs"_a = nb::none(),
          "outputs"_a = nb::none(), "activation"_a = "none", "residual"_a = nb::none(), "coarse"_a = nb::none(), "out"_a = nb::none());
}

}  // namespace sluice
