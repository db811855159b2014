// The gated product: rows of activations times the active part of packed weights, with the fused epilogue.
#pragma once

#include <limits>

#include "instruction_set.h"
#include "memory.h"

namespace sluice {

// The ascending ids of the active channels; null: `count` of them from the first on.
struct Channels {
    const std::int32_t *ids = nullptr;
    std::size_t count = 0;
    std::size_t first = 0;

    std::size_t operator[](std::size_t i) const { return ids ? static_cast<std::size_t>(ids[i]) : first + i; }
    Channels part(std::size_t begin, std::size_t end) const {
        return ids ? Channels{ids + begin, end - begin, 0} : Channels{nullptr, end - begin, first + begin};
    }
};

// The layer norm of rows, see Norm.
struct RowNorm {
    const InstructionSet &set;
    const float *weight, *bias;
    float epsilon;

    // Of `channels` neighbouring floats of each.
    void operator()(const float *x, std::size_t rows, std::size_t channels, float *out) const {
        set.normalise({x, nullptr, weight, bias, epsilon, rows, channels, out});
    }
};

// Rows of floats, which may lie apart, or over each other as those do that a convolution sees.
struct InputRows {
    const float *values;
    std::size_t count, stride;  // floats from one row to the next
    const RowNorm *norm = nullptr;  // of a reduced product, which normalises them when it rounds them; null: none

    const float *row(std::size_t i) const { return values + i * stride; }
    InputRows part(std::size_t begin, std::size_t n) const { return {row(begin), n, stride, norm}; }
};

// y = residual + saliency · act(scale · sum + shift). Null: 0, 1, 1 and 0.
struct Epilogue {
    const float *scale = nullptr;     // [outputs]
    const float *shift = nullptr;     // [outputs]
    const float *saliency = nullptr;  // [active outputs]
    const float *residual = nullptr;  // as the result, may be its own place
    Activation activation = Activation::none;

    // Whether it takes a second pass over a tile's result.
    bool finishes() const {
        return residual || activation == Activation::gelu || activation == Activation::silu;
    }

    // What a tile clamps results to where it does not.
    float floor() const { return activation == Activation::relu || activation == Activation::relu6 ? 0.0f : -kNoClamp; }
    float ceiling() const { return activation == Activation::relu6 ? 6.0f : kNoClamp; }
    static constexpr float kNoClamp = std::numeric_limits<float>::infinity();

    // That of the active outputs from the first-th on.
    Epilogue from(std::size_t first) const {
        Epilogue rest = *this;
        if (rest.saliency) rest.saliency += first;
        if (rest.residual) rest.residual += first;
        return rest;
    }
};

struct Weights {
    const float *packed;  // [blocks][taps][inputs][64], 64-byte aligned
    std::size_t outputs, inputs, taps;
    const void *split = nullptr;  // the same as parts for the tile unit, see split_product.h; null: not kept
    bool halves = false;          // whether they can be halved, see strassen.h
};

constexpr std::size_t packed_size(std::size_t outputs, std::size_t inputs, std::size_t taps) {
    return (outputs + kBlock - 1) / kBlock * taps * inputs * kBlock;
}

// `weight` is [outputs][inputs][taps]; `packed` holds packed_size() zeros.
void pack_weights(const float *weight, std::size_t outputs, std::size_t inputs, std::size_t taps, float *packed);

// `activations` is [taps][positions] pointers to rows of inputs.count floats; rows of `out`, of outputs.count, lie `stride`
// apart.
void multiply(const InstructionSet &set, const Weights &weights, const float *const *activations, std::size_t positions,
              Channels inputs, Channels outputs, const Epilogue &epilogue, Scratch &scratch, float *out,
              std::size_t stride);

}  // namespace sluice
