// The packed layers, their convolution and their matrix product.
#include <algorithm>
#include <cmath>
#include <limits>

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include "bindings.h"
#include "layers.h"
#include "norm_argument.h"
#include "packed.h"
#include "split_product.h"
#include "strassen.h"
#include "weight_memory.h"

namespace sluice {
namespace {

void check_sizes(std::size_t outputs, std::size_t inputs) {
    if (outputs == 0 || inputs == 0) reject("weight must have at least one output and one input");
    if (outputs > kMostChannels || inputs > kMostChannels) reject("weight must have at most 2^24 outputs and inputs");
}

void check_geometry(std::size_t kernel, std::size_t stride, std::size_t padding) {
    if (kernel != 1 && kernel != 3) reject("weight must be a 1x1 or a 3x3 kernel");
    if (stride != 1 && stride != 2) reject("stride must be 1 or 2, not " + std::to_string(stride));
    if (padding > 1) reject("padding must be 0 or 1, not " + std::to_string(padding));
}

nb::object pack_array(const Argument &weight, std::size_t outputs, std::size_t inputs, std::size_t taps) {
    using Memory = std::shared_ptr<void>;
    auto *memory = new Memory(weight_memory(packed_size(outputs, inputs, taps) * sizeof(float)));
    nb::capsule owner(memory, [](void *own) noexcept { delete static_cast<Memory *>(own); });
    auto *packed = static_cast<float *>(memory->get());
    {
        const nb::gil_scoped_release released;
        pack_weights(weight.floats(), outputs, inputs, taps, packed);
    }
    const std::size_t shape[] = {(outputs + kBlock - 1) / kBlock, taps, inputs, kBlock};
    return array_over(packed, Items::float32, 4, shape, std::move(owner));
}

// Weights that are not finite cannot be split: they take the vector units.
const InstructionSet &set_for(const Argument &weights, const std::optional<std::string> &name) {
    const InstructionSet *set = &instruction_set_named(name);
    if (!set->split) return *set;
    const float *values = weights.floats();
    bool finite = true;
    for (std::size_t i = 0; i < weights.items; ++i) finite &= std::abs(values[i]) <= std::numeric_limits<float>::max();
    return finite ? *set : without_split();
}

template <typename Layer>
Layer from_packed(nb::handle weights, std::size_t outputs, std::size_t inputs, std::size_t kernel, std::size_t stride,
                  std::size_t padding, const std::optional<std::string> &instruction_set) {
    check_sizes(outputs, inputs);
    check_geometry(kernel, stride, padding);
    Layer layer;
    static_cast<Packed &>(layer) = {float_array(weights, "weights", 4), outputs, inputs, kernel, stride, padding, nullptr};
    const std::size_t expected[] = {(outputs + kBlock - 1) / kBlock, kernel * kernel, inputs, kBlock};
    for (std::size_t axis = 0; axis < 4; ++axis) {
        if (layer.array.size(axis) != expected[axis])
            reject("weights must have the shape [blocks, taps, inputs, 64] of this layer");
    }
    if (reinterpret_cast<std::uintptr_t>(layer.array.floats()) % 64) reject("weights must lie on a 64-byte boundary");
    layer.set = &set_for(layer.array, instruction_set);
    return layer;
}

template <typename Layer>
Layer reduced_layer(const Argument &weight, std::size_t kernel, std::size_t stride, std::size_t padding,
                    Datatype datatype, const std::optional<std::string> &instruction_set) {
    Layer layer;
    static_cast<Packed &>(layer) = {{}, weight.size(0), weight.size(1), kernel, stride, padding, nullptr,
                                    reduced_weights(weight, kernel * kernel, datatype, instruction_set)};
    return layer;
}

PackedConvolution pack_convolution(nb::handle weight, std::size_t stride, std::size_t padding,
                                   const std::string &datatype_, const std::optional<std::string> &instruction_set) {
    const Argument w = float_array(weight, "weight", 4);
    const std::size_t outputs = w.size(0), inputs = w.size(1), kernel = w.size(2);
    if (w.size(3) != kernel) reject("weight must be a 1x1 or a 3x3 kernel");
    check_sizes(outputs, inputs);
    check_geometry(kernel, stride, padding);
    const Datatype datatype = datatype_named(datatype_);
    if (datatype == Datatype::int8) reject("datatype of a convolution must be fp32 or bf16, not 'int8'");
    if (datatype != Datatype::fp32)
        return reduced_layer<PackedConvolution>(w, kernel, stride, padding, datatype, instruction_set);
    return from_packed<PackedConvolution>(pack_array(w, outputs, inputs, kernel * kernel), outputs, inputs, kernel,
                                          stride, padding, instruction_set);
}

PackedMatrix pack_matrix(nb::handle weight, const std::string &datatype_,
                         const std::optional<std::string> &instruction_set, bool split) {
    const Argument w = float_array(weight, "weight", 2);
    check_sizes(w.size(0), w.size(1));
    const Datatype datatype = datatype_named(datatype_);
    if (datatype != Datatype::fp32) return reduced_layer<PackedMatrix>(w, 1, 1, 0, datatype, instruction_set);
    PackedMatrix packed = from_packed<PackedMatrix>(pack_array(w, w.size(0), w.size(1), 1), w.size(0), w.size(1), 1, 1,
                                                    0, instruction_set);
    if (!packed.set->split) {
        const nb::gil_scoped_release released;
        packed.halves = can_be_halved(packed.weights());
    }
    if (split && packed.set->split) {
        packed.split_bytes = split_bytes(packed.outputs, packed.inputs);
        const std::shared_ptr<void> parts = weight_memory(packed.split_bytes, Kept::parts);
        const nb::gil_scoped_release released;
        split_weights(*packed.set->split, packed.weights(), parts.get());
        packed.split = parts;
    }
    return packed;
}

// The arguments that a convolution and a matrix product share, checked.
struct Gated {
    ChannelList inputs, outputs;
    OptionalFloats scale, shift, saliency;
    Activation activation;

    Gated(const Packed &packed, nb::handle input_list, nb::handle output_list, nb::handle scale_, nb::handle shift_,
          const std::string &activation_, nb::handle saliency_, std::size_t channels)
        : inputs(channel_list(input_list, "inputs", packed.inputs)),
          outputs(channel_list(output_list, "outputs", packed.outputs)),
          scale(optional_floats(scale_, "scale", packed.outputs, "outputs")),
          shift(optional_floats(shift_, "shift", packed.outputs, "outputs")),
          saliency(optional_floats(saliency_, "saliency", outputs.channels.count, "active outputs")),
          activation(activation_named(activation_)) {
        if (channels != inputs.channels.count) {
            reject("x must have " + std::to_string(inputs.channels.count) +
                   " channels, one for each active input, not " + std::to_string(channels));
        }
    }

    // What is read must not be what is written, but for the residual, each of whose values is read just before its place
    // is written.
    void check_apart(const Result &y, const Argument &weights, const Argument &residual) const {
        y.check_apart(inputs.argument, "inputs");
        y.check_apart(outputs.argument, "outputs");
        y.check_apart(scale.argument, "scale");
        y.check_apart(shift.argument, "shift");
        y.check_apart(saliency.argument, "saliency");
        y.check_apart(weights, "the packed weights");
        y.check_apart_or_same(residual, "residual");
    }

    Epilogue epilogue(const Argument &residual) const {
        return {scale.data, shift.data, saliency.data, residual.is_valid() ? residual.floats() : nullptr,
                activation};
    }
};

nb::object gated_conv2d(nb::handle x_, const PackedConvolution &packed, nb::handle inputs, nb::handle outputs,
                        nb::handle scale, nb::handle shift, const std::string &activation, nb::handle saliency,
                        nb::handle residual_, nb::handle out, Threads *threads) {
    const Argument x = float_array(x_, "x", 3);
    const Gated gated(packed, inputs, outputs, scale, shift, activation, saliency, x.size(2));
    const Convolution shape{x.size(0), x.size(1), packed.kernel, packed.stride, packed.padding};
    if (std::min(shape.height, shape.width) + 2 * shape.padding < shape.kernel)
        reject("x must be at least as large as the kernel");
    if (std::min(shape.height, shape.width) == 0) reject("x must have at least one position");
    const auto extents = {shape.out_height(), shape.out_width(), gated.outputs.channels.count};
    const Argument residual = optional_array(residual_, "residual", extents);
    const Result y = result(out, extents);
    y.check_apart(x, "x");
    gated.check_apart(y, packed.array, residual);
    {
        const nb::gil_scoped_release released;
        const Epilogue epilogue = gated.epilogue(residual);
        if (packed.reduced) {
            convolve_reduced(*packed.reduced, shape, x.floats(), gated.inputs.channels, gated.outputs.channels,
                             epilogue, y.data, threads);
        } else {
            convolve(*packed.set, packed.weights(), shape, x.floats(), gated.inputs.channels, gated.outputs.channels,
                     epilogue, y.data, threads);
        }
    }
    return y.object;
}

nb::object gated_matmul(nb::handle x_, const PackedMatrix &packed, nb::handle inputs, nb::handle outputs,
                        nb::handle scale, nb::handle shift, const std::string &activation, nb::handle saliency,
                        nb::handle residual_, const NormTuple &norm_, nb::handle out, Threads *threads) {
    const Argument x = overlapping_rows(x_, "x");
    const Gated gated(packed, inputs, outputs, scale, shift, activation, saliency, x.size(1));
    const auto extents = {x.size(0), gated.outputs.channels.count};
    const Argument residual = optional_array(residual_, "residual", extents);
    const NormArgument norm(norm_, gated.inputs.channels.count);
    const Result y = result(out, extents);
    y.check_apart(x, "x");
    norm.check_apart(y);
    gated.check_apart(y, packed.array, residual);
    {
        const nb::gil_scoped_release released;
        const RowsForProduct normed({x.floats(), x.size(0), x.row_stride(), norm.get()}, gated.inputs.channels.count,
                                    packed.reduced != nullptr);
        multiply_rows(packed, normed.rows(), gated.inputs.channels, gated.outputs.channels, gated.epilogue(residual), y.data,
                      threads);
    }
    return y.object;
}

template <typename Layer>
nb::object packed_weights(nb::handle self) {
    const Argument &array = nb::cast<const Layer &>(self).array;
    if (!array.is_valid()) reject("only the weights of an fp32 layer are an array");
    const std::size_t shape[] = {array.size(0), array.size(1), array.size(2), array.size(3)};
    return nb::cast(nb::ndarray<nb::numpy, const float>(array.floats(), 4, shape, self));
}

}  // namespace

void bind_products(nb::module_ &m) {
    using namespace nb::literals;

    nb::class_<PackedConvolution>(m, "PackedConvolution")
        .def_static("from_weights", &from_packed<PackedConvolution>, "weights"_a.none(), "outputs"_a, "inputs"_a,
                    "kernel"_a, "stride"_a, "padding"_a, "instruction_set"_a = nb::none())
        .def_ro("outputs", &PackedConvolution::outputs)
        .def_ro("inputs", &PackedConvolution::inputs)
        .def_ro("kernel", &PackedConvolution::kernel)
        .def_ro("stride", &PackedConvolution::stride)
        .def_ro("padding", &PackedConvolution::padding)
        .def_prop_ro("datatype", &PackedConvolution::datatype)
        .def_prop_ro("instruction_set", &PackedConvolution::instruction_set)
        .def_prop_ro("nbytes", &PackedConvolution::bytes)
        .def_prop_ro("weights", &packed_weights<PackedConvolution>)
        .def(
            "macs",
            [](const PackedConvolution &p, std::size_t height, std::size_t width, std::size_t inputs,
               std::size_t outputs) {
                const Convolution shape{height, width, p.kernel, p.stride, p.padding};
                if (std::min(height, width) + 2 * p.padding < p.kernel)
                    reject("height and width must be at least as large as the kernel");
                return shape.out_height() * shape.out_width() * p.kernel * p.kernel * inputs * outputs;
            },
            "height"_a, "width"_a, "n_inputs"_a, "n_outputs"_a);

    nb::class_<PackedMatrix>(m, "PackedMatrix")
        .def_static(
            "from_weights",
            [](nb::handle weights, std::size_t outputs, std::size_t inputs,
               const std::optional<std::string> &instruction_set) {
                return from_packed<PackedMatrix>(weights, outputs, inputs, 1, 1, 0, instruction_set);
            },
            "weights"_a.none(), "outputs"_a, "inputs"_a, "instruction_set"_a = nb::none())
        .def_ro("outputs", &PackedMatrix::outputs)
        .def_ro("inputs", &PackedMatrix::inputs)
        .def_prop_ro("datatype", &PackedMatrix::datatype)
        .def_prop_ro("instruction_set", &PackedMatrix::instruction_set)
        .def_prop_ro("nbytes", &PackedMatrix::bytes)
        .def_prop_ro("weights", &packed_weights<PackedMatrix>)
        .def(
            "macs",
            [](const PackedMatrix &, std::size_t rows, std::size_t inputs, std::size_t outputs) {
                return rows * inputs * outputs;
            },
            "rows"_a, "n_inputs"_a, "n_outputs"_a);

    m.def("pack_convolution", &pack_convolution, "weight"_a.none(), "stride"_a = 1, "padding"_a = 0,
          "datatype"_a = "fp32", "instruction_set"_a = nb::none());
    m.def("pack_matrix", &pack_matrix, "weight"_a.none(), "datatype"_a = "fp32", "instruction_set"_a = nb::none(),
          "split"_a = false);
    m.def("gated_conv2d", &gated_conv2d, "x"_a.none(), "packed"_a, nb::kw_only(), "inputs"_a = nb::none(),
          "outputs"_a = nb::none(), "scale"_a = nb::none(), "shift"_a = nb::none(), "activation"_a = "none",
          "saliency"_a = nb::none(), "residual"_a = nb::none(), "out"_a = nb::none(), "threads"_a = nb::none());
    m.def("gated_matmul", &gated_matmul, "x"_a.none(), "packed"_a, nb::kw_only(), "inputs"_a = nb::none(),
          "outputs"_a = nb::none(), "scale"_a = nb::none(), "shift"_a = nb::none(), "activation"_a = "none",
          "saliency"_a = nb::none(), "residual"_a = nb::none(), "norm"_a = nb::none(), "out"_a = nb::none(), "threads"_a = nb::none());
}

}  // namespace sluice
