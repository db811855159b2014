// The gated product: rows of activations times the active part of packed weights, with the fused epilogue.
#pragma once

#include "instruction_set.h"
#include "memory.h"

namespace sluice {

// The ascending ids of the active channels; null: all of them.
struct Channels {
    const std::int32_t *ids = nullptr;
    std::size_t count = 0;
};

// y = residual + saliency · act(scale · sum + shift). Null: 0, 1, 1 and 0.
struct Epilogue {
    const float *scale = nullptr;     // [outputs]
    const float *shift = nullptr;     // [outputs]
    const float *saliency = nullptr;  // [active outputs]
    const float *residual = nullptr;  // [positions][active outputs], may be the result's own place
    Activation activation = Activation::none;

    // Whether it takes a second pass over a tile's result.
    bool finishes() const {
        return residual || activation == Activation::gelu || activation == Activation::silu;
    }
};

struct Weights {
    const float *packed;  // [blocks][taps][inputs][64], 64-byte aligned
    std::size_t outputs, inputs, taps;
};

constexpr std::size_t packed_size(std::size_t outputs, std::size_t inputs, std::size_t taps) {
    return (outputs + kBlock - 1) / kBlock * taps * inputs * kBlock;
}

// `weight` is [outputs][inputs][taps]; `packed` holds packed_size() zeros.
void pack_weights(const float *weight, std::size_t outputs, std::size_t inputs, std::size_t taps, float *packed);

// `activations` is [taps][positions] pointers to rows of inputs.count floats; `out` is [positions][outputs.count].
void multiply(const InstructionSet &set, const Weights &weights, const float *const *activations, std::size_t positions,
              Channels inputs, Channels outputs, const Epilogue &epilogue, Scratch &scratch, float *out);

}  // namespace sluice
