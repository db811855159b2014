// A network of gated convolutions on one image, all layers in one call: squeeze, saliency, select, compute, pool.
#pragma once

#include <vector>

#include "gate.h"
#include "reduced.h"

namespace sluice {

// Weights that somebody else keeps. The gate is of gate_channels(), its features of squeeze().
struct NetworkLayer {
    const InstructionSet *set;
    Weights weights;                // packed: of fp32
    const ReducedWeights *reduced;  // of bf16; null: fp32
    std::size_t kernel, stride, padding;
    const float *predictor;  // [inputs + evidence][outputs]
    const float *offset;     // [outputs]
    bool pool;

    Convolution convolution(std::size_t height, std::size_t width) const {
        return {height, width, kernel, stride, padding};
    }
};

// What a level changes: the threshold of each layer, and scale and shift of its outputs, one layer after another.
struct Level {
    const float *thresholds, *scales, *shifts;
};

// y = multiplier · relu(scale · conv(x) + shift) of each layer's active channels, pooled where it says so; x is
// [height][width][inputs of the first]. Writes the ids of each layer's active channels, one layer after another with
// room for all outputs, their numbers, and the means over the positions of the last layer's.
void run_network(const std::vector<NetworkLayer> &layers, std::size_t height, std::size_t width, const float *x,
                 const float *evidence, std::size_t evidence_count, const Level &level, std::int32_t *active,
                 std::size_t *counts, float *means, Threads *threads = nullptr);

}  // namespace sluice
