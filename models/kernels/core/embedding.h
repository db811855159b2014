// The embeddings of tokens, and products of them that are looked up.
#pragma once

#include <memory>

#include "instruction_set.h"

namespace sluice {

// Rows of floats, or of bf16.
struct LookupTable {
    std::size_t rows, width;
    bool rounded;
    std::shared_ptr<void> data;

    std::size_t bytes() const { return rows * width * (rounded ? sizeof(std::uint16_t) : sizeof(float)); }
};

LookupTable empty_table(std::size_t rows, std::size_t width, bool rounded);

// Rows first … first + count become `values`.
void fill_rows(LookupTable &table, std::size_t first, std::size_t count, const float *values);

// Which rows of two tables go together.
struct Tokens {
    const std::int32_t *ids, *places;
    std::size_t count;
};

// The norm of words[id] + positions[place] of each token, and 1 / sqrt(variance + epsilon) of it. Of `norm` the rest is
// given.
void embed_tokens(const InstructionSet &set, const float *words, const float *positions, const Tokens &tokens,
                  const Norm &norm);

}  // namespace sluice
