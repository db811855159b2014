#include "gate.h"

#include <algorithm>
#include <cmath>

#include "memory.h"

namespace sluice {
namespace {

FloatBuffer &buffer() {
    thread_local FloatBuffer kept;
    return kept;
}

}  // namespace

void squeeze(const InstructionSet &set, const float *x, std::size_t positions, Channels inputs, std::size_t channels,
             const float *evidence, std::size_t evidence_count, float *features) {
    std::copy_n(evidence, evidence_count, features + channels);
    if (channels == 1) {
        double magnitude = 0;
        for (std::size_t p = 0; p < positions; ++p) magnitude += std::abs(x[p]);
        features[0] = static_cast<float>(magnitude / static_cast<double>(positions));
        return;
    }
    float *means = inputs.ids ? buffer().reserve(inputs.count) : features;
    set.means(x, positions, inputs.count, means);
    double sum = 0;
    for (std::size_t k = 0; k < inputs.count; ++k) sum += means[k];
    const double all = static_cast<double>(channels);
    const float factor = static_cast<float>(all / std::max(sum, 1e-6 * all));
    if (inputs.ids) std::fill_n(features, channels, 0.0f);
    for (std::size_t k = 0; k < inputs.count; ++k) features[inputs.ids ? inputs.ids[k] : k] = means[k] * factor;
}

std::size_t gate_channels(const InstructionSet &set, const float *features, std::size_t count,
                          const float *projection, const float *bias, std::size_t channels, float threshold,
                          std::int32_t *active, float *multipliers) {
    float *saliencies = buffer().reserve(channels);
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

std::size_t select_channels(const InstructionSet &set, const float *x, std::size_t rows, std::size_t channels,
                            const float *mean, const float *norms, float threshold, std::int32_t *active) {
    float *saliencies = buffer().reserve(channels);
    set.measure({x, mean, norms, rows, channels, saliencies});
    std::size_t count = 0;
    for (std::size_t k = 0; k < channels; ++k) {
        active[count] = static_cast<std::int32_t>(k);
        count += !(saliencies[k] <= threshold);
    }
    return count;
}

void take_channels(const InstructionSet &set, const float *x, std::size_t rows, std::size_t channels,
                   const float *mean, Channels active, float *out) {
    float *taken = mean ? buffer().reserve(active.count) : nullptr;
    if (mean) set.take({mean, nullptr, 1, channels, active.ids, active.count, taken});
    set.take({x, taken, rows, channels, active.ids, active.count, out});
}

}  // namespace sluice
