// Layers whose weights are bf16 or int8; activations come and go as float.
//
// bf16: products of values rounded to bf16, summed in float. int8: weights have a scale for each output channel,
// activations one for each position, found by the call; the sums are exact.
#pragma once

#include <memory>
#include <vector>

#include "layers.h"
#include "reduced_set.h"

namespace sluice {

// Weights in strips of 16 output columns: [strip][tap][tile][line], see reduced_set.h; a tap's lines are padded with
// zeros to whole tiles.
struct ReducedWeights {
    Datatype datatype;
    const ReducedSet *set;
    std::size_t outputs, inputs, taps;
    std::size_t line_count;
    std::shared_ptr<Line[]> lines;
    std::vector<float> scales;  // of int8: weight = scale · number

    std::size_t tap_lines() const {
        return (inputs + tile_inputs(datatype) - 1) / tile_inputs(datatype) * kTileLines;
    }
    const Line *strip(std::size_t index) const { return lines.get() + index * taps * tap_lines(); }
    std::size_t bytes() const { return line_count * sizeof(Line) + scales.size() * sizeof(float); }
};

// The most inputs whose products in int8 fit a sum of 32 bits.
constexpr std::size_t kMostInt8Inputs = 0x7fffffff / (127 * 127);

// Ties go to the even one, and what is no number stays none.
std::uint16_t nearest_bf16(float value);

// `weight` is [outputs][inputs][taps], finite.
ReducedWeights reduce_weights(const float *weight, std::size_t outputs, std::size_t inputs, std::size_t taps,
                              Datatype datatype, const ReducedSet &set);

// As multiply_matrix() and convolve(); a convolution has square kernels and bf16 weights.
void multiply_reduced(const ReducedWeights &weights, const InputRows &x, Channels inputs, Channels outputs,
                      const Epilogue &epilogue, float *out, Threads *threads = nullptr);
void convolve_reduced(const ReducedWeights &weights, const Convolution &shape, const float *x, Channels inputs,
                      Channels outputs, const Epilogue &epilogue, float *out, Threads *threads = nullptr);

// Both products of a feed-forward block in bf16: `first` is the epilogue of its active neurons, `second` that of their sums.
// In between they are rounded, and lie in the tiles that the second product reads. Returns false, and does nothing, where it
// is better to move those of neurons here and there together.
bool feed_forward_reduced(const ReducedWeights &up, const ReducedWeights &down, const InputRows &x, Channels neurons,
                          const Epilogue &first, const Epilogue &second, float *out, Threads *threads = nullptr);

}  // namespace sluice
