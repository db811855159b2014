// Which channels of a layer are active: predicted from features, or measured on its input.
#pragma once

#include "product.h"

namespace sluice {

// The features of a gate, [channels + evidence]: the means of x's channels over its positions divided by their own mean
// over all channels, 0 for the inactive ones; then the evidence. A single channel, an image, gives the mean of its
// magnitude. x is [positions][inputs.count].
void squeeze(const InstructionSet &set, const float *x, std::size_t positions, Channels inputs, std::size_t channels,
             const float *evidence, std::size_t evidence_count, float *features);

// The gate: a = features · projection + bias, r = relu(a); channel j is active when a_j > threshold and a_j > 0,
// multiplied by r_j / mean(r). When none is, the largest a alone is, with the multiplier 1 when all r are 0. Returns
// the number of active channels; `active` and `multipliers` have room for all. `projection` is [features][channels]: a
// feature that is 0, an inactive channel's, is a row that is not read.
std::size_t gate_channels(const InstructionSet &set, const float *features, std::size_t count,
                          const float *projection, const float *bias, std::size_t channels, float threshold,
                          std::int32_t *active, float *multipliers);

// The measured gate: input channel k of x [rows][channels] is active when the root mean square of x_k − mean_k over the
// rows, times norm_k, is above the threshold; one that is no number is active. `mean` may be null for 0. Returns the
// number of active channels.
std::size_t select_channels(const InstructionSet &set, const float *x, std::size_t rows, std::size_t channels,
                            const float *mean, const float *norms, float threshold, std::int32_t *active);

// The active channels of x − mean: [rows][active.count].
void take_channels(const InstructionSet &set, const float *x, std::size_t rows, std::size_t channels,
                   const float *mean, Channels active, float *out);

}  // namespace sluice
