// What the ways to multiply have in common: a product's active outputs in spans of up to 64 columns, and their epilogue.
#pragma once

#include <algorithm>

#include "product.h"

namespace sluice {

constexpr std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// The epilogue of a span, for each of its columns.
struct Folded {
    alignas(64) float scale[kBlock], shift[kBlock], saliency[kBlock];
};

// The values of `count` channels from the first on of a list, and zeros up to a block.
inline void spread(const float *values, float otherwise, Channels channels, std::size_t first, std::size_t count,
                   float *to) {
    if (!values) {
        std::fill_n(to, kBlock, otherwise);
        return;
    }
    if (channels.ids) {
        for (std::size_t j = 0; j < count; ++j) to[j] = values[channels[first + j]];
    } else {
        std::copy_n(values + channels[first], count, to);
    }
    std::fill_n(to + count, kBlock - count, 0.0f);
}

inline Folded fold(const Epilogue &epilogue, Channels outputs, std::size_t first, std::size_t count) {
    Folded folded;
    spread(epilogue.scale, 1.0f, outputs, first, count, folded.scale);
    spread(epilogue.shift, 0.0f, outputs, first, count, folded.shift);
    spread(epilogue.saliency, 1.0f, {nullptr, outputs.count}, first, count, folded.saliency);
    return folded;
}

struct Product {
    const InstructionSet &set;
    const Weights &weights;
    const float *const *activations;
    std::size_t positions;
    Channels inputs, outputs;
    const Epilogue &epilogue;
    Scratch &scratch;
    float *out;
    std::size_t stride;  // of the rows of out

    std::size_t output(std::size_t j) const { return outputs[j]; }

    const float *block(std::size_t first) const {
        return weights.packed + output(first) / kBlock * weights.taps * weights.inputs * kBlock;
    }

    // The number of active outputs from `first` on that are in the same block.
    std::size_t in_block(std::size_t first) const {
        const std::size_t end = (output(first) / kBlock + 1) * kBlock;
        if (!outputs.ids) return std::min(end - outputs.first, outputs.count) - first;
        std::size_t count = 1;
        while (first + count < outputs.count && output(first + count) < end) ++count;
        return count;
    }

    // Partly active blocks in a row are packed together, into spans of even width. `in_place` tells whether the weights of
    // wholly active ones are used where they lie.
    void find_spans(bool in_place) const {
        scratch.spans.clear();
        std::size_t waiting = 0;  // outputs before `first` that are to be packed
        for (std::size_t first = 0; first < outputs.count;) {
            const std::size_t count = in_block(first), at = output(first) / kBlock * kBlock;
            const bool all = count == std::min(kBlock, weights.outputs - at);
            if (all && in_place) {
                split(first - waiting, waiting);
                waiting = 0;
                scratch.spans.push_back({first, count, true});
            } else {
                waiting += count;
            }
            first += count;
        }
        split(outputs.count - waiting, waiting);
    }

    void split(std::size_t first, std::size_t count) const {
        const std::size_t vectors = divide_up(count, set.lanes), spans = divide_up(count, kBlock);
        for (std::size_t i = 0; i < spans; ++i) {
            const std::size_t begin = i * vectors / spans * set.lanes;
            scratch.spans.push_back(
                {first + begin, std::min((i + 1) * vectors / spans * set.lanes, count) - begin, false});
        }
    }

    Folded fold(std::size_t first, std::size_t count) const { return sluice::fold(epilogue, outputs, first, count); }

    // The epilogue of what is in `sums`, of the outputs from `first` on.
    Finish finishing(const float *sums, const Folded &folded, std::size_t at, std::size_t position, std::size_t first,
                     std::size_t columns) const {
        const std::size_t place = position * stride + first;
        return {epilogue.activation, sums, folded.scale + at, folded.shift + at, folded.saliency + at,
                epilogue.residual ? epilogue.residual + place : nullptr, out + place, stride, columns};
    }
};

}  // namespace sluice
