// The layers that Python sees, over raw pointers. The binding has checked every shape and every channel id before these
// run.
#pragma once

#include "product.h"

namespace sluice {

struct Convolution {
    std::size_t height, width;  // of the input
    std::size_t kernel, stride, padding;

    std::size_t out_height() const { return (height + 2 * padding - kernel) / stride + 1; }
    std::size_t out_width() const { return (width + 2 * padding - kernel) / stride + 1; }
};

// x is [height][width][inputs.count], out is [out_height][out_width][outputs.count]. The indirect algorithm of XNNPACK
// (Dukhan 2019), with a pointer to a row of taps where it has one to a tap: in a padded image neighbouring taps are
// neighbours in memory, and their inputs are one long list.
void convolve(const InstructionSet &set, const Weights &weights, const Convolution &shape, const float *x,
              Channels inputs, Channels outputs, const Epilogue &epilogue, float *out);

// x is [rows][inputs.count], out is [rows][outputs.count].
void multiply_matrix(const InstructionSet &set, const Weights &weights, const float *x, std::size_t rows,
                     Channels inputs, Channels outputs, const Epilogue &epilogue, float *out);

// The features of a gate, [channels + evidence]: the means of x's channels over its positions divided by their own mean
// over all channels, 0 for the inactive ones; then the evidence. A single channel, an image, gives the mean of its
// magnitude. x is [positions][inputs.count].
void squeeze(const InstructionSet &set, const float *x, std::size_t positions, Channels inputs, std::size_t channels,
             const float *evidence, std::size_t evidence_count, float *features);

// The gate: a = features · projection + bias, r = relu(a); channel j is active when a_j > threshold and a_j > 0,
// multiplied by r_j / mean(r). When none is, the largest a alone is, with the multiplier 1 when all r are 0. Returns
// the number of active channels; `active` and `multipliers` have room for all. `projection` is [features][channels]: a
// feature that is 0, an inactive channel's, is a row that is not read.
std::size_t select_channels(const InstructionSet &set, const float *features, std::size_t count,
                            const float *projection, const float *bias, std::size_t channels, float threshold,
                            std::int32_t *active, float *multipliers);

}  // namespace sluice
