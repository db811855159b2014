#include "layers.h"

#include <algorithm>
#include <cmath>

namespace sluice {
namespace {

Scratch &scratch() {
    thread_local Scratch kept;
    return kept;
}

// x with a border of zeros, [height + 2 · padding][width + 2 · padding][channels].
const float *with_border(FloatBuffer &buffer, const Convolution &shape, const float *x, std::size_t channels) {
    if (shape.padding == 0) return x;
    const std::size_t row = shape.width * channels, side = shape.padding * channels, pitch = row + 2 * side;
    float *padded = buffer.reserve((shape.height + 2 * shape.padding) * pitch), *to = padded;
    to = std::fill_n(to, shape.padding * pitch + side, 0.0f);
    for (std::size_t y = 0; y < shape.height; ++y) {
        to = std::copy_n(x + y * row, row, to);
        to = std::fill_n(to, y + 1 < shape.height ? 2 * side : side + shape.padding * pitch, 0.0f);
    }
    return padded;
}

// [kernel][positions] pointers to the row of taps that each output position reads, `kernel` neighbouring pixels.
const float *const *indirection(std::vector<const float *> &pointers, const Convolution &shape, const float *padded,
                                std::size_t channels) {
    const std::size_t out_height = shape.out_height(), out_width = shape.out_width();
    const std::size_t pitch = (shape.width + 2 * shape.padding) * channels;
    pointers.resize(shape.kernel * out_height * out_width);
    const float **next = pointers.data();
    for (std::size_t dy = 0; dy < shape.kernel; ++dy) {
        for (std::size_t i = 0; i < out_height; ++i) {
            const float *row = padded + (i * shape.stride + dy) * pitch;
            for (std::size_t j = 0; j < out_width; ++j) *next++ = row + j * shape.stride * channels;
        }
    }
    return pointers.data();
}

// The active inputs of a row of taps, whose weights lie one after another, as one list.
Channels row_of_taps(std::vector<std::int32_t> &index, Channels inputs, std::size_t taps, std::size_t channels) {
    if (!inputs.ids || taps == 1) return {inputs.ids, inputs.count * taps};
    index.resize(taps * inputs.count);
    std::int32_t *next = index.data();
    for (std::size_t tap = 0; tap < taps; ++tap) {
        for (std::size_t k = 0; k < inputs.count; ++k)
            *next++ = inputs.ids[k] + static_cast<std::int32_t>(tap * channels);
    }
    return {index.data(), index.size()};
}

}  // namespace

void convolve(const InstructionSet &set, const Weights &weights, const Convolution &shape, const float *x,
              Channels inputs, Channels outputs, const Epilogue &epilogue, float *out) {
    Scratch &kept = scratch();
    const float *padded = with_border(kept.padded, shape, x, inputs.count);
    const float *const *activations = indirection(kept.activations, shape, padded, inputs.count);
    const Weights rows{weights.packed, weights.outputs, weights.inputs * shape.kernel, shape.kernel};
    multiply(set, rows, activations, shape.out_height() * shape.out_width(),
             row_of_taps(kept.index, inputs, shape.kernel, weights.inputs), outputs, epilogue, kept, out);
}

void multiply_matrix(const InstructionSet &set, const Weights &weights, const float *x, std::size_t rows,
                     Channels inputs, Channels outputs, const Epilogue &epilogue, float *out) {
    Scratch &kept = scratch();
    kept.activations.resize(rows);
    for (std::size_t row = 0; row < rows; ++row) kept.activations[row] = x + row * inputs.count;
    multiply(set, weights, kept.activations.data(), rows, inputs, outputs, epilogue, kept, out);
}

void squeeze(const InstructionSet &set, const float *x, std::size_t positions, Channels inputs, std::size_t channels,
             const float *evidence, std::size_t evidence_count, float *features) {
    std::copy_n(evidence, evidence_count, features + channels);
    if (channels == 1) {
        double magnitude = 0;
        for (std::size_t p = 0; p < positions; ++p) magnitude += std::abs(x[p]);
        features[0] = static_cast<float>(magnitude / static_cast<double>(positions));
        return;
    }
    float *means = inputs.ids ? scratch().sums.reserve(inputs.count) : features;
    set.means(x, positions, inputs.count, means);
    double sum = 0;
    for (std::size_t k = 0; k < inputs.count; ++k) sum += means[k];
    const double all = static_cast<double>(channels);
    const float factor = static_cast<float>(all / std::max(sum, 1e-6 * all));
    if (inputs.ids) std::fill_n(features, channels, 0.0f);
    for (std::size_t k = 0; k < inputs.count; ++k) features[inputs.ids ? inputs.ids[k] : k] = means[k] * factor;
}

std::size_t select_channels(const InstructionSet &set, const float *features, std::size_t count,
                            const float *projection, const float *bias, std::size_t channels, float threshold,
                            std::int32_t *active, float *multipliers) {
    float *saliencies = scratch().sums.reserve(channels);
    std::copy_n(bias, channels, saliencies);
    for (std::size_t k = 0; k < count; ++k) {
        if (features[k] != 0) set.add_scaled(projection + k * channels, features[k], channels, saliencies);
    }
    double sum = 0;
    float largest = -INFINITY;
    std::size_t strongest = 0, selected = 0;
    for (std::size_t j = 0; j < channels; ++j) {
        const float a = saliencies[j];
        if (a > 0) sum += a;
        if (a > largest) {
            largest = a;
            strongest = j;
        }
        if (a > threshold && a > 0) {
            active[selected] = static_cast<std::int32_t>(j);
            multipliers[selected++] = a;
        }
    }
    if (selected == 0) {
        active[selected] = static_cast<std::int32_t>(strongest);
        multipliers[selected++] = std::max(largest, 0.0f);
    }
    const float mean = static_cast<float>(sum / static_cast<double>(channels));
    for (std::size_t i = 0; i < selected; ++i) multipliers[i] = mean > 0 ? multipliers[i] / mean : 1.0f;
    return selected;
}

}  // namespace sluice
