#include "network.h"

#include <utility>

namespace sluice {
namespace {

// One to a thread, so that a warm call allocates nothing.
struct Arena {
    FloatBuffer features, multipliers, activations[2];
};

Arena &arena() {
    thread_local Arena kept;
    return kept;
}

}  // namespace

void run_network(const std::vector<NetworkLayer> &layers, std::size_t height, std::size_t width, const float *x,
                 const float *evidence, std::size_t evidence_count, const Level &level, std::int32_t *active,
                 std::size_t *counts, float *means, Threads *threads) {
    Arena &kept = arena();
    FloatBuffer *result = &kept.activations[0], *spare = &kept.activations[1];
    Channels inputs{nullptr, layers.front().weights.inputs};
    std::size_t first = 0;  // of the layer's outputs, among those of all layers
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const NetworkLayer &layer = layers[i];
        const std::size_t channels = layer.weights.inputs, outputs = layer.weights.outputs;
        float *features = kept.features.reserve(channels + evidence_count);
        squeeze(*layer.set, x, height * width, inputs, channels, evidence, evidence_count, features);
        float *multipliers = kept.multipliers.reserve(outputs);
        counts[i] = gate_channels(*layer.set, features, channels + evidence_count, layer.predictor, layer.offset,
                                  outputs, level.thresholds[i], active + first, multipliers);
        const Channels selected{counts[i] < outputs ? active + first : nullptr, counts[i]};
        const Convolution shape = layer.convolution(height, width);
        height = shape.out_height();
        width = shape.out_width();
        float *y = result->reserve(height * width * counts[i]);
        const Epilogue epilogue{level.scales + first, level.shifts + first, multipliers, nullptr, Activation::relu};
        if (layer.reduced) {
            convolve_reduced(*layer.reduced, shape, x, inputs, selected, epilogue, y, threads);
        } else {
            convolve(*layer.set, layer.weights, shape, x, inputs, selected, epilogue, y, threads);
        }
        std::swap(result, spare);  // x is not needed any more
        if (layer.pool) {
            float *pooled = result->reserve(height / 2 * (width / 2) * counts[i]);
            layer.set->pool(y, height, width, counts[i], pooled);
            std::swap(result, spare);
            y = pooled;
            height /= 2;
            width /= 2;
        }
        x = y;
        inputs = selected;
        first += outputs;
    }
    layers.back().set->means(x, height * width, inputs.count, means);
}

}  // namespace sluice
