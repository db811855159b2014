// A coarse copy of a layer for a few rows: 4 bits to a weight, for the inputs that matter little in this request. Their
// part of the result is small, so that it may be a little wrong, and costs a half of the bytes of int8, a quarter of bf16.
#pragma once

#include <memory>

#include "coarse_set.h"
#include "rows_set.h"

namespace sluice {

// The steps of the inputs in bf16, and then units of 32 outputs: a line for every 4 inputs, the scales of the inputs in
// this unit, and those of the outputs, so that all of it is read from end to end. A weight is the scale of its output,
// times that of its input in this unit, times one of 16 values; the scale of an input is one of 16 shares of its step.
struct CoarseWeights {
    std::size_t outputs, inputs;
    std::shared_ptr<void> data;

    std::size_t padded_inputs() const { return (inputs + kCoarseInputs - 1) / kCoarseInputs * kCoarseInputs; }
    std::size_t units() const { return (outputs + kCoarseOutputs - 1) / kCoarseOutputs; }
    CoarseUnit unit() const { return {padded_inputs()}; }
    std::size_t step_bytes() const { return 2 * padded_inputs(); }  // whole lines
    std::size_t bytes() const { return step_bytes() + units() * unit().bytes(); }
    std::uint8_t *steps() const { return static_cast<std::uint8_t *>(data.get()); }
    std::uint8_t *unit(std::size_t index) const { return steps() + step_bytes() + index * unit().bytes(); }
};

// With memory of zeros for the weights.
CoarseWeights empty_coarse(std::size_t outputs, std::size_t inputs);

// How an error of one input's weights is made up for by those of others (Frantar et al. 2023, GPTQ): of the inverse of
// the second moments of the inputs, both in `order`, the lower Cholesky factor [inputs][inputs].
struct MakingUp {
    const std::int32_t *order;  // [inputs], each once; null: nothing is made up for
    const float *factor;
};

// `weight` is [outputs][inputs], finite.
CoarseWeights pack_coarse(const float *weight, std::size_t outputs, std::size_t inputs, const MakingUp &making_up);

// The weights that it stands for, [outputs][inputs].
void unpack_coarse(const CoarseWeights &weights, float *to);

// y[r] += C · x[r] of up to kFewRows rows, of all inputs and outputs, by the instructions of that set, or better ones of the same processor.
void add_coarse(const CoarseWeights &weights, const RowSet &set, const float *const *x, std::size_t rows, float *const *y);

}  // namespace sluice
