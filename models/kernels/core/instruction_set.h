// The inner loops, once per instruction set. Everything else in the core is portable and calls them through this table.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice {

// Weights are stored in blocks of 64 output columns: [block][tap][input][64], the last block padded with zeros.
constexpr std::size_t kBlock = 64;

// The most output positions that one tile covers, on any instruction set.
constexpr std::size_t kMaxRows = 8;

// One tile: `rows` output positions by up to `vectors * lanes` output columns, over all taps and active inputs.
struct Tile {
    const float *const *activations;  // [taps][activation_stride] pointers, each to `depth` floats
    std::size_t activation_stride;    // pointers from one tap to the next
    const float *weights;             // column 0 of the tile, tap 0, input 0
    std::size_t weight_row;           // floats from one input to the next
    std::size_t weight_tap;           // floats from one tap to the next
    const std::int32_t *index;        // which weight rows are read, `depth` of them; null: 0 … depth − 1
    std::size_t taps;
    std::size_t depth;
    const float *scale;     // y = saliency · max(scale · sum + shift, floor), per column; all three padded to whole vectors
    const float *shift;
    const float *saliency;
    float floor;            // 0 for a ReLU, −∞ for none
    float *out;
    std::size_t out_stride;  // floats from one position to the next
    std::size_t columns;     // columns that are stored, ≤ vectors · lanes
};

// Copies the weights of the active inputs and outputs into a contiguous panel [taps][depth][row].
struct Panel {
    const float *weights;  // packed weights of the whole layer
    std::size_t inputs;    // of the whole layer
    std::size_t taps;
    const std::int32_t *index;  // active inputs, `depth` of them; null: 0 … depth − 1
    std::size_t depth;
    const std::int32_t *columns;  // active outputs of this panel, ascending
    std::size_t count;            // ≤ 64
    float *panel;                 // 64-byte aligned, with room for one more vector at the end
    std::size_t row;              // floats from one row of the panel to the next
};

struct InstructionSet {
    const char *name;
    std::size_t lanes;                   // floats in a vector
    std::size_t vectors;                 // most vectors of columns in a tile
    std::size_t rows[4];                 // most rows of a tile, by its number of vectors less one
    void (*tile)(const Tile &, std::size_t rows, std::size_t vectors);
    void (*pack)(const Panel &);
    float (*dot)(const float *, const float *, std::size_t);
    void (*means)(const float *x, std::size_t positions, std::size_t channels, float *out);
    void (*pool)(const float *x, std::size_t height, std::size_t width, std::size_t channels, float *out);
};

extern const InstructionSet kPortable;
#if defined(SLUICE_X86)
extern const InstructionSet kAvx2;
extern const InstructionSet kAvx512;
#elif defined(SLUICE_NEON)
extern const InstructionSet kNeon;
#endif

// Those that this processor can run, best first; the last is always kPortable. Ends with a null.
const InstructionSet *const *instruction_sets();

}  // namespace sluice
