// The inner loops, once per instruction set. Everything else in the core is portable and calls them through this table.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice {

// Weights are stored in blocks of 64 output columns: [block][tap][input][64], the last block padded with zeros.
constexpr std::size_t kBlock = 64;

// A cache line of them.
constexpr std::size_t kLine = 16;

constexpr std::size_t kHalfBlock = kBlock / 2;

// The most output positions that one tile covers, on any instruction set.
constexpr std::size_t kMaxRows = 8;

enum class Activation { none, relu, relu6, gelu, silu };

// One tile: some output positions by some output columns, over some inputs of one tap or all inputs of several.
struct Tile {
    const float *const *activations;  // a pointer for each tap and position, to the values of all active inputs
    std::size_t activation_tap;       // pointers from one tap to the next
    std::size_t taps;
    std::size_t begin, depth;   // the active inputs begin … begin + depth of each tap
    const std::int32_t *index;  // ids of those; null: begin … begin + depth themselves
    const float *weights;    // column 0 of the tile, first tap; the row of input 0 if `in_place`, else of input `begin`
    std::size_t weight_row;  // floats from one row to the next
    std::size_t weight_tap;  // floats from one tap to the next
    std::size_t layer_tap;   // the same in the layer's own weights
    bool in_place;           // whether `weights` are those, read through `index`

    // Rows of weights that a later tile will read, to be fetched meanwhile: these ids, or null for those from the first on.
    // Of each some lines, which lie here in row 0 of their block.
    const float *const *ahead_lines;
    std::size_t ahead_count;
    const std::int32_t *ahead_index;
    std::size_t ahead_first, ahead_rows;
    bool ahead_near;  // into the nearest cache, not the second

    float *sums;       // [position][kBlock], what earlier tiles have summed; unused if `first` and `last`
    bool first, last;  // of the tiles that add to these sums: start from zero, write the result

    const float *scale;  // y = saliency · clamp(scale · sum + shift), per column; all padded to whole vectors
    const float *shift;
    const float *saliency;
    float floor, ceiling;  // what it is clamped to: 0 and ∞ for a ReLU, ∓∞ for no activation
    float *out;
    std::size_t out_stride;  // floats from one position to the next
    std::size_t columns;     // columns that are stored
};

// The whole epilogue, where it is a pass of its own over the sums of a tile while they are in the nearest cache: with an
// activation that is more than a clamp, with a residual, or of a few rows.
struct Finish {
    Activation activation;
    const float *sums;                     // [rows][kBlock]
    const float *scale, *shift, *saliency;  // padded to whole vectors
    const float *residual;                 // null: none
    float *out;                            // may be the residual
    std::size_t stride;                    // floats from one row of the result, and of the residual, to the next
    std::size_t columns;
};

// The product of a few rows with those cache lines of a block that hold active outputs. The weights are most of the
// memory that it reads, and each is used but once a row.
struct Lines {
    const float *const *activations;  // a pointer for each row
    const std::int32_t *index;        // ids of the active inputs; null: all
    std::size_t depth;
    const float *weights;             // of the block
    std::size_t offsets[kBlock / kLine];  // of the lines in it
    std::size_t count;
    const float *next;  // the block after it, null: none
    bool far;           // whether the layer comes from memory
    float *sums;        // [row][count of lines][kLine]
    std::size_t stride;  // floats from one row of them to the next
};

// out[i][j] = factor · a_i · b_j of rows that may lie apart. Those of b are read once for several of a.
struct Products {
    const float *a;
    std::size_t a_stride, a_count;
    const float *b;
    std::size_t b_stride, b_count;
    std::size_t depth;
    float factor;
    float *out;
    std::size_t out_stride;
};

// y = (z − mean) / sqrt(variance + epsilon) · weight + bias of each row of z = x + residual; without a bias the mean is
// taken for 0.
struct Norm {
    const float *x;
    const float *residual;  // null: none
    const float *weight, *bias;
    float epsilon;
    std::size_t rows, channels;
    float *out;  // may be x or the residual
    float *factors = nullptr;  // [rows], 1 / sqrt(variance + epsilon); null: not wanted
};

// Row r of the result [rows][width]: factors[r] · (table[ids[r]] + added[places[r]]) + bias.
struct LookUp {
    const void *table;  // [any][width]
    bool rounded;       // it holds bf16, else floats
    const float *added;  // [any][width]
    const std::int32_t *ids, *places;
    const float *factors, *bias;
    std::size_t rows, width;
    float *out;
};

// The saliency of each channel of x [rows][channels]: sqrt(mean over the rows of (x − mean)²) · norm.
struct Measure {
    const float *x;
    const float *mean;  // null: 0
    const float *norms;
    std::size_t rows, channels;
    float *saliencies;
};

// Channels of x [rows][channels], less their means: [rows][count].
struct Take {
    const float *x;
    const float *means;  // [count], null: 0
    std::size_t rows, channels;
    const std::int32_t *ids;
    std::size_t count;
    float *out;
};

// Rotary embedding of rows of heads: (a, b) becomes (a cos − b sin, b cos + a sin), a and b the halves of a head.
struct Rotary {
    const float *x;
    std::size_t stride, rows, heads, half;
    const float *cosines, *sines;  // [rows][half]
    float *out;                    // may be x
    std::size_t out_stride;
};

// A depthwise convolution of an image with its border: each channel with its own kernel.
struct Depthwise {
    const float *x;             // [rows][columns][channels]
    std::size_t columns, channels;
    std::size_t kernel, stride;
    const float *weights;                   // [kernel · kernel][channels]
    const float *scale, *shift, *saliency;  // [channels]
    Activation activation;
    std::size_t out_height, out_width;
    float *out;
};

// A softmax of which some blocks have been seen: their largest score, and the sum of e^(score − largest).
struct Softmax {
    float maximum, sum;
};

// How 16 consecutive active columns are picked from the cache lines that hold them. Step s merges line s + 1 into what
// was picked from those before: 0 … 15 keep a lane of that (step 0: of line 0), 16 … 31 take one of the line.
struct Pick {
    const float *lines[kLine];
    std::size_t count;  // of lines, at least 2: the second may be the first again
    alignas(64) std::int32_t steps[kLine][kLine];
};

// The weights of up to 64 active outputs, packed a few inputs at a time.
struct Panel {
    const std::int32_t *columns;  // the active outputs, ascending
    std::size_t count;
    const float *weights;  // of the layer
    std::size_t block;     // floats from one block of them to the next
    float *packed;         // [tap][input][row], on a 64-byte boundary
    std::size_t row;
    Pick picks[kBlock / kLine];
};

// Some rows of the upper half and as many of the lower, by a block of columns, over two times `depth` inputs: see
// strassen.h.
struct HalvesTile {
    const float *upper, *lower;  // inputs of the front half, and behind them of the back; see InputRows for strides
    std::size_t upper_stride, lower_stride;
    const float *mixed_rows;  // four mixtures, `mixed_apart` floats apart; rows of `depth`
    std::size_t mixed_apart;
    const float *weights;  // rows of kBlock
    float *mixed_weights;  // [4][depth][kHalfBlock]
    bool mixes;            // makes them
    std::size_t depth;

    // Sums of earlier tiles, and of this one, of the upper and of the lower rows: [row][kBlock].
    float *sums[2];
    bool first, last;  // they start from zero, become the result

    // The epilogue of the last: see Tile.
    struct Columns {
        const float *scale, *shift, *saliency;
        float floor, ceiling;
    } columns;
    float *out[2];
    std::size_t out_stride;
    std::size_t lower_rows;  // that are stored

    // Weights that a later tile will read, to be fetched meanwhile: so many bytes at each step of a product, of which there
    // are 7 · depth.
    const char *ahead;
    std::size_t ahead_bytes;
};

// The bits of the largest |x| of a row of each half: those of infinity, or more, where one is not finite.
struct RowPairBits {
    std::int32_t upper, lower;
};

struct SplitSet;
struct TileAttention;
struct VectorAttention;

struct InstructionSet {
    const char *name;
    std::size_t lanes;    // floats in a vector
    std::size_t vectors;  // most vectors of columns in a tile
    std::size_t rows[4];  // most rows of a tile, by its number of vectors less one
    void (*tile)(const Tile &, std::size_t rows, std::size_t vectors);
    // Prepares a panel once for all its inputs.
    void (*plan)(Panel &);
    // The first tile over some inputs: packs all columns of the panel, from taps that begin `tap` floats into a block.
    void (*packing_tile)(const Tile &, const Panel &, std::size_t tap, std::size_t rows, std::size_t vectors);
    void (*finish)(const Finish &, std::size_t rows);
    std::size_t half_rows;  // most of a tile of halves
    void (*halves_tile)(const HalvesTile &, std::size_t rows);
    RowPairBits (*mix_rows)(const float *upper, const float *lower, std::size_t depth, std::size_t apart, float *mixed);
    std::size_t few_rows;  // the most that lines() takes
    void (*lines)(const Lines &, std::size_t rows);
    void (*normalise)(const Norm &);
    void (*look_up)(const LookUp &);
    // The next block of a row of scores, biased, becomes e^(score − largest so far), with zeros up to a whole vector.
    // Returns what the sums of earlier blocks are to be multiplied by.
    float (*soften)(float *scores, const float *bias, std::size_t count, Softmax &state);
    void (*products)(const Products &);
    void (*measure)(const Measure &);
    void (*take)(const Take &);
    void (*rotate)(const Rotary &);
    void (*depthwise)(const Depthwise &);
    void (*add_scaled)(const float *x, float factor, std::size_t n, float *sums);  // sums += factor · x
    void (*means)(const float *x, std::size_t positions, std::size_t channels, float *out);
    void (*pool)(const float *x, std::size_t height, std::size_t width, std::size_t channels, float *out);
    // For benchmarks: rounds of arithmetic on registers, returns the multiply-accumulates done; the sum of an array.
    std::size_t (*accumulate)(std::size_t rounds);
    float (*read)(const float *x, std::size_t count);
    // Whether weights are fetched ahead into the nearest cache; else into the second. AMD's processors are faster so: on
    // Zen 5 a product of 128 rows with weights from memory takes 7 % less time.
    bool fetches_near;
    const SplitSet *split;  // products of many rows, see split.h; null: none
    const TileAttention *tile_attention;  // see attention.h; null: none
    const VectorAttention *attention = nullptr;  // in float32, see attention.h; null: none
    const VectorAttention *rounded_attention = nullptr;  // in bf16
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
