// Joining rows that are nearly alike: a gate on the positions of a sequence.
#pragma once

#include <cstdint>

#include "instruction_set.h"

namespace sluice {

struct Rows {
    const float *values;  // [count][width]
    const float *sizes;   // [count]
    std::size_t count, width;
};

// For each row the one that it goes to, often itself. Pairs of which 1 − the cosine is not above the threshold are gone
// through from the most alike on: a row that is in no pair yet joins the one before it, or a row that others have
// joined. The first row stays by itself. Returns how many rows are left.
std::size_t match_rows(const InstructionSet &set, const float *rows, std::size_t count, std::size_t width,
                       float threshold, std::int32_t *target);

// The rows that are left, in order, each the mean of those that went to it, weighted by their sizes; and its size.
void join_rows(const InstructionSet &set, const Rows &rows, const std::int32_t *target, float *out, float *out_sizes);

}  // namespace sluice
