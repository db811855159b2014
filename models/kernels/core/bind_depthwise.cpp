// The depthwise convolution.
#include <algorithm>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include "arguments.h"
#include "bindings.h"
#include "depthwise.h"
#include "memory.h"

namespace sluice {
namespace {

// Never changed after construction, so any number of threads may share it.
struct PackedDepthwise {
    AlignedFloats weights;  // [kernel · kernel][channels]
    std::size_t channels, kernel, stride, before, after;
    const InstructionSet *set;

    DepthwiseShape shape(std::size_t height, std::size_t width) const {
        if (std::min(height, width) + before + after < kernel || std::min(height, width) == 0)
            reject("x must be at least as large as the kernel, with at least one position");
        return {height, width, kernel, stride, before, after};
    }
};

PackedDepthwise pack_depthwise(nb::handle weight_, std::size_t stride, std::pair<std::size_t, std::size_t> padding,
                               const std::optional<std::string> &instruction_set) {
    const Argument weight = float_array(weight_, "weight", 3);
    const std::size_t channels = weight.size(0), kernel = weight.size(1), taps = kernel * kernel;
    if ((kernel != 3 && kernel != 5) || weight.size(2) != kernel) reject("weight must be 3x3 or 5x5 kernels");
    if (channels == 0 || channels > kMostChannels) reject("weight must have at least one channel and at most 2^24");
    if (stride != 1 && stride != 2) reject("stride must be 1 or 2, not " + std::to_string(stride));
    if (std::max(padding.first, padding.second) >= kernel) reject("padding must be less than the kernel");
    PackedDepthwise packed{zeroed_floats(taps * channels), channels, kernel, stride, padding.first, padding.second,
                           &instruction_set_named(instruction_set)};
    for (std::size_t c = 0; c < channels; ++c) {
        for (std::size_t tap = 0; tap < taps; ++tap)
            packed.weights[tap * channels + c] = weight.floats()[c * taps + tap];
    }
    return packed;
}

nb::object depthwise_conv2d(nb::handle x_, const PackedDepthwise &packed, nb::handle channels_, nb::handle scale_,
                            nb::handle shift_, const std::string &activation, nb::handle saliency_, nb::handle out) {
    const Argument x = float_array(x_, "x", 3);
    const ChannelList channels = channel_list(channels_, "channels", packed.channels);
    const std::size_t count = channels.channels.count;
    if (x.size(2) != count) {
        reject("x must have " + std::to_string(count) + " channels, one for each active channel, not " +
               std::to_string(x.size(2)));
    }
    const DepthwiseShape shape = packed.shape(x.size(0), x.size(1));
    const OptionalFloats scale = optional_floats(scale_, "scale", packed.channels, "channels"),
                         shift = optional_floats(shift_, "shift", packed.channels, "channels"),
                         saliency = optional_floats(saliency_, "saliency", count, "active channels");
    const Epilogue epilogue{scale.data, shift.data, saliency.data, nullptr, activation_named(activation)};
    const Result y = result(out, {shape.out_height(), shape.out_width(), count});
    y.check_apart(x, "x");
    y.check_apart(channels.argument, "channels");
    y.check_apart(scale.argument, "scale");
    y.check_apart(shift.argument, "shift");
    y.check_apart(saliency.argument, "saliency");
    {
        const nb::gil_scoped_release released;
        convolve_depthwise(*packed.set, packed.weights.get(), packed.channels, shape, x.floats(), channels.channels,
                           epilogue, y.data);
    }
    return y.object;
}

}  // namespace

void bind_depthwise(nb::module_ &m) {
    using namespace nb::literals;

    nb::class_<PackedDepthwise>(m, "PackedDepthwise")
        .def_ro("channels", &PackedDepthwise::channels)
        .def_ro("kernel", &PackedDepthwise::kernel)
        .def_ro("stride", &PackedDepthwise::stride)
        .def_prop_ro("padding", [](const PackedDepthwise &p) { return std::pair(p.before, p.after); })
        .def_prop_ro("instruction_set", [](const PackedDepthwise &p) { return p.set->name; })
        .def(
            "macs",
            [](const PackedDepthwise &p, std::size_t height, std::size_t width, std::size_t channels) {
                const DepthwiseShape shape = p.shape(height, width);
                return shape.out_height() * shape.out_width() * p.kernel * p.kernel * channels;
            },
            "height"_a, "width"_a, "n_channels"_a);
    m.def("pack_depthwise", &pack_depthwise, "weight"_a.none(), "stride"_a = 1, "padding"_a = std::pair(0, 0),
          "instruction_set"_a = nb::none());
    m.def("depthwise_conv2d", &depthwise_conv2d, "x"_a.none(), "packed"_a, nb::kw_only(), "channels"_a = nb::none(),
          "scale"_a = nb::none(), "shift"_a = nb::none(), "activation"_a = "none", "saliency"_a = nb::none(),
          "out"_a = nb::none());
}

}  // namespace sluice
