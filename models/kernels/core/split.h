// Products in fp32 on the tile unit, which multiplies bf16: a number is the sum of three in bf16, its first, second and
// third eight digits (in base 2), and a product that of the six products of parts that reach into 24 digits, as in the
// emulations of fp32 in MKL and cuBLAS (Henry, Tang and Heinecke 2019). The tile unit is 16 times as fast as the vector
// units, so that even so the same sums take half of the time.
#pragma once

#include "reduced_set.h"

namespace sluice {

constexpr std::size_t kParts = 3;

// What is multiplied at a time: some inputs of one tap by up to 64 columns.
struct SplitPanel {
    const float *weights = nullptr;       // of the block; of picked columns: unused
    std::size_t tap = 0;                  // floats from there to the row of input 0
    const std::int32_t *index = nullptr;  // ids of the inputs; null: consecutive
    std::size_t begin = 0, depth = 0;     // the inputs begin … begin + depth, of which there are some
    std::size_t strips = 0;               // of 16 columns
    const Pick *picks = nullptr;          // one to a strip, where they are picked; null: neighbours
    const float *ahead = nullptr;         // weights that come later, of the same rows; to be fetched meanwhile
    const Line *ready = nullptr;          // the panel as it was split before, which is only to be fetched; null: it was not
};

// The epilogue of an earlier panel, which the vector units do while the tile unit multiplies.
struct SplitFinish {
    void (*finish)(const Finish &, std::size_t rows) = nullptr;
    Finish rows{};  // the next ones
    std::size_t left = 0;
};

struct SplitJob {
    const std::uint8_t *activations;  // [tile][step][part][row], 32 inputs of a row are 64 bytes
    std::size_t steps, tiles, tile_rows;
    const Line *weights;  // of this panel, split already: [pair of strips][step][part][strip][line]
    std::size_t strips;
    float *sums;  // [tile · tile_rows][kBlock]
    bool first;   // whether they begin at zero
    SplitPanel next;  // to be split meanwhile
    Line *next_weights;
    SplitFinish *waiting;
};

constexpr std::size_t kStepInputs = 32;

// Lines that a panel of so many steps takes.
constexpr std::size_t split_lines(std::size_t steps) { return steps * kParts * 4 * kTileLines; }

struct SplitSet {
    void (*enter)(std::size_t tile_rows);
    void (*leave)();
    // One row of activations into its place in each step; false where a value is not finite.
    bool (*split_row)(const float *x, std::size_t count, std::uint8_t *to);
    void (*split_panel)(const SplitPanel &, Line *to);
    void (*multiply)(const SplitJob &);
};

#if defined(SLUICE_AMX)
extern const SplitSet kSplitAmx;
#endif

}  // namespace sluice
