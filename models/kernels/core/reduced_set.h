// The products in bf16 and int8, once per instruction set. All of them read the same layout and are called through this
// table.
#pragma once

#include <cstddef>
#include <cstdint>

#include "instruction_set.h"

namespace sluice {

enum class Datatype { fp32, bf16, int8 };

// A line holds 16 output columns of a group of inputs, 2 in bf16 or 4 in int8: [column][input]. That is what one
// instruction multiplies by the same group of a row of activations, and adds up.
struct alignas(64) Line {
    std::uint8_t bytes[64];
};

constexpr std::size_t kColumns = 16;    // of a line
constexpr std::size_t kTileLines = 16;  // of a tile of weights; also the most positions of a tile of activations

constexpr std::size_t group_size(Datatype datatype) { return datatype == Datatype::int8 ? 4 : 2; }
constexpr std::size_t tile_inputs(Datatype datatype) { return kTileLines * group_size(datatype); }

// The inputs of one tile: bit i is set when its i-th input is active. Those are the values `first` and following of a
// row of x; zero stands for the others.
struct Slots {
    std::uint64_t active;
    std::size_t first;
};

// The tiles of one strip of 16 columns, and where its results go.
struct Strip {
    const Line *weights;
    std::uint32_t active;  // bit j is set when column j is stored
    std::size_t column;    // of the result, where the first of those goes
    alignas(64) float scale[kColumns], shift[kColumns], saliency[kColumns];
};

// Some strips by all positions. Position p of the activations is position p / pitch · width + p % pitch of the result,
// or none where p % pitch reaches the width.
struct Job {
    const std::uint8_t *activations;
    std::size_t position_bytes;                // from one position of a tile to the next
    std::size_t tile_bytes;                    // from one tile of positions to the next
    std::size_t steps;                         // tiles of weights of a strip that take part
    const std::size_t *activation_steps;       // where each begins, in bytes
    const std::size_t *weight_steps;           // the same, in lines
    std::size_t tiles, tile_rows;              // tiles of positions, positions of each
    std::size_t positions, pitch, width;
    const float *row_scales;                   // of int8 activations, one a position
    const Strip *strips;
    std::size_t strip_count;
    // Lines of a strip in the layer's own memory, behind whose last strip lies what was packed next, which in a model is
    // called next; 0: the strips are elsewhere.
    std::size_t strip_lines;
    Activation activation;
    bool plain;             // all scales and saliencies are 1
    const float *residual;  // null: none
    float *out;
    std::size_t out_stride;  // floats from one position of the result to the next
    // Not null: results are rounded to bf16 here in place of `out`, as activations of a product of the same positions,
    // whose tiles of them lie so far apart. All columns of a strip are stored, which begins at a multiple of 16.
    std::uint8_t *rounded;
    std::size_t rounded_tile_bytes;
};

constexpr std::size_t kMostPackedStrips = 4;

// Picks 16 columns out of the strips that hold them: lane j is lane `lanes[j]` of the strip whose mask has bit j.
struct Gather {
    const Line *strips[kColumns];
    std::uint32_t masks[kColumns];
    std::size_t count;
    alignas(64) std::int32_t lanes[kColumns];
};

struct ReducedSet {
    const char *name;
    std::size_t packed_strips;  // strips that are packed at a time: as many as one pass over the positions reads
    std::size_t packing_cost;   // what packing a tile of weights costs, in tiles that are multiplied
    std::size_t neuron_tiles;   // tiles of positions whose neurons are made before those of others: see FeedForward
    // Around the calls of `multiply`, on the same thread.
    void (*enter)(std::size_t tile_rows);
    void (*leave)();
    // One row of `count` active values, rounded, into its place in each tile. Returns its scale in int8, 1 in bf16.
    float (*convert)(const float *x, std::size_t count, const Slots *slots, std::size_t steps, std::uint8_t *to,
                     std::size_t step_bytes);
    void (*gather)(const Gather &, const std::int32_t *lines, std::size_t count, Line *to);
    void (*multiply)(const Job &);
    // For benchmarks: rounds of arithmetic on registers; returns the multiply-accumulates done.
    std::size_t (*accumulate)(std::size_t rounds);
};

extern const ReducedSet kBf16Portable, kInt8Portable;
#if defined(SLUICE_X86)
extern const ReducedSet kBf16Avx2, kInt8Avx2, kBf16Avx512, kInt8Avx512;
#endif
#if defined(SLUICE_AMX)
extern const ReducedSet kBf16Amx, kInt8Amx;
// Whether the processor has tile registers for bf16 and int8, and the system lets this process use them.
bool has_tiles();
#endif

// Those of a datatype that this processor can run, best first; the last is always portable. Ends with a null.
const ReducedSet *const *reduced_sets(Datatype datatype);

}  // namespace sluice
