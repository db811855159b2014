// A network of gated convolutions.
#include <algorithm>

#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "blocks.h"
#include "network.h"
#include "packed.h"

namespace sluice {
namespace {

// Its arrays are kept as they are, and not copied.
struct GatedLayer {
    PackedConvolution packed;
    Argument predictor, offset;
    bool pool;

    std::size_t evidence() const { return predictor.size(0) - packed.inputs; }
    NetworkLayer view() const {
        const InstructionSet *set = packed.reduced ? *instruction_sets() : packed.set;
        const Weights weights{packed.reduced ? nullptr : packed.array.floats(), packed.outputs, packed.inputs,
                              packed.kernel * packed.kernel};
        return {set, weights, packed.reduced.get(), packed.kernel, packed.stride, packed.padding,
                predictor.floats(), offset.floats(), pool};
    }
};

struct GatedNetwork {
    std::vector<GatedLayer> layers;
    std::vector<NetworkLayer> views;
    std::size_t evidence, outputs;  // of all layers together
};

GatedLayer gated_layer(const PackedConvolution &packed, nb::handle predictor_, nb::handle offset_, bool pool) {
    GatedLayer made{packed, float_array(predictor_, "predictor", 2), float_array(offset_, "offset", 1), pool};
    check_channels(made.offset, "offset", packed.outputs);
    if (made.predictor.size(1) != packed.outputs || made.predictor.size(0) < packed.inputs) {
        reject("predictor must be [inputs + evidence, outputs], with " + std::to_string(packed.inputs) +
               " inputs or more and " + std::to_string(packed.outputs) + " outputs");
    }
    return made;
}

GatedNetwork gated_network(const std::vector<GatedLayer> &layers) {
    if (layers.empty()) reject("layers must hold at least one");
    GatedNetwork made{layers, {}, layers.front().evidence(), 0};
    for (std::size_t i = 0; i < layers.size(); ++i) {
        if (i && layers[i].packed.inputs != layers[i - 1].packed.outputs)
            reject("layers must have as many inputs as the one before has outputs");
        if (layers[i].evidence() != made.evidence) reject("layers must have gates with as much evidence as the first");
        made.views.push_back(made.layers[i].view());
        made.outputs += layers[i].packed.outputs;
    }
    return made;
}

// Raises a ValueError where an image is too small for a layer.
void check_positions(const GatedNetwork &network, std::size_t height, std::size_t width) {
    for (const NetworkLayer &layer : network.views) {
        const Convolution shape = layer.convolution(height, width);
        const std::size_t least = std::min(height, width);
        if (least == 0 || least + 2 * shape.padding < shape.kernel)
            reject("x must be at least as large as every kernel");
        height = shape.out_height();
        width = shape.out_width();
        if (!layer.pool) continue;
        if (std::min(height, width) < 2) reject("x must be at least 2x2 at every pool");
        height /= 2;
        width /= 2;
    }
}

nb::object run_gated_network(const GatedNetwork &network, nb::handle x_, nb::handle evidence_, nb::handle thresholds_,
                             nb::handle scales_, nb::handle shifts_, Threads *threads) {
    const std::size_t layers = network.layers.size();
    const Argument x = float_array(x_, "x", 3);
    if (x.size(2) != network.layers.front().packed.inputs) {
        reject("x must have " + std::to_string(network.layers.front().packed.inputs) + " channels, not " +
               std::to_string(x.size(2)));
    }
    check_positions(network, x.size(0), x.size(1));
    const Argument evidence = shaped_array(evidence_, "evidence", {network.evidence}),
                   thresholds = shaped_array(thresholds_, "thresholds", {layers}),
                   scales = shaped_array(scales_, "scales", {network.outputs}),
                   shifts = shaped_array(shifts_, "shifts", {network.outputs});
    if (std::any_of(thresholds.floats(), thresholds.floats() + layers, [](float t) { return t != t; }))
        reject("thresholds must be numbers");
    auto *active = static_cast<std::int32_t *>(take_block(network.outputs * sizeof(std::int32_t)));
    const nb::capsule lists(active, give_block);
    auto *means = static_cast<float *>(take_block(network.layers.back().packed.outputs * sizeof(float)));
    const nb::capsule owner(means, give_block);
    std::vector<std::size_t> counts(layers);
    {
        const nb::gil_scoped_release released;
        run_network(network.views, x.size(0), x.size(1), x.floats(), evidence.floats(), network.evidence,
                    {thresholds.floats(), scales.floats(), shifts.floats()}, active, counts.data(), means,
                    threads);
    }
    nb::list selected;
    for (std::size_t i = 0; i < layers; ++i) {
        selected.append(array_over(active, Items::int32, 1, &counts[i], lists));
        active += network.layers[i].packed.outputs;
    }
    return nb::make_tuple(array_over(means, Items::float32, 1, &counts.back(), owner), selected);
}

}  // namespace

void bind_network(nb::module_ &m) {
    using namespace nb::literals;

    nb::class_<GatedLayer>(m, "GatedLayer");
    nb::class_<GatedNetwork>(m, "GatedNetwork");
    m.def("gated_layer", &gated_layer, "packed"_a, "predictor"_a.none(), "offset"_a.none(), nb::kw_only(),
          "pool"_a = false);
    m.def("gated_network", &gated_network, "layers"_a);
    m.def("run_gated_network", &run_gated_network, "network"_a, "x"_a.none(), "evidence"_a.none(), nb::kw_only(),
          "thresholds"_a.none(), "scales"_a.none(), "shifts"_a.none(), "threads"_a = nb::none());
}

}  // namespace sluice
