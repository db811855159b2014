// Joining rows that are nearly alike: a gate on the positions of a sequence.
#pragma once

#include <cstdint>
#include <vector>

#include "instruction_set.h"

namespace sluice {

struct Rows {
    const float *values;  // [count][width]
    const float *sizes;   // [count]
    std::size_t count, width;
};

// For each row the one that it goes to: itself, or for even rows but the first the odd row that it is most alike, if
// 1 − their cosine is not above the threshold. Returns how many rows are left.
std::size_t match_rows(const InstructionSet &set, const Rows &rows, float threshold, std::vector<std::int32_t> &target);

// The rows that are left, in order, each the mean of those that went to it, weighted by their sizes; and its size.
void join_rows(const InstructionSet &set, const Rows &rows, const std::vector<std::int32_t> &target, float *out,
               float *out_sizes);

}  // namespace sluice
