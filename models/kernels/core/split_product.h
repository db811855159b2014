// The gated product of many rows on the tile unit, see split.h.
#pragma once

#include "spans.h"

namespace sluice {

// False, and nothing is written, where it takes another way: for few rows, or activations that are not finite. The
// instruction set has `split`, and the weights are finite.
bool multiply_split(const Product &product);

// The parts of a matrix's weights, made once and kept: [blocks][chunks of inputs], a panel each.
std::size_t split_bytes(std::size_t outputs, std::size_t inputs);
void split_weights(const SplitSet &set, const Weights &weights, void *to);

}  // namespace sluice
