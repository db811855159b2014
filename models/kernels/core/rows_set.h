// The products with a few rows, once per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "coarse_set.h"
#include "reduced_set.h"

namespace sluice {

// The most rows for which weights are used where they lie.
constexpr std::size_t kFewRows = 8;

// Columns, or inputs, that lie together.
constexpr std::size_t kGroup = 32;

constexpr std::size_t item_bytes(Datatype datatype) {
    return datatype == Datatype::fp32 ? 4 : datatype == Datatype::bf16 ? 2 : 1;
}

// sums[r][column] = Σ_k x[r][k] · row(ids[k])[column] for one block of columns.
struct RowGather {
    const std::uint8_t *weights;  // of the block
    std::size_t row_bytes;
    const std::int32_t *ids;  // null: 0 … count − 1
    std::size_t count;
    const float *const *x;  // of each row
    float *const *sums;
    std::size_t offset;  // of the block in those
    std::size_t groups;
};

// sums[r][j] = x[r] · row(ids[j]).
struct RowDots {
    const std::uint8_t *weights;
    std::size_t row_bytes;
    const std::int32_t *ids;  // null: 0 … count − 1
    std::size_t count;
    const float *const *x;
    float *const *sums;
    std::size_t groups;
};

// The channels of one row whose saliency, |x − mean| · norm, is above the threshold or no number; means may be null.
struct RowSaliency {
    const float *x, *means, *norms;
    float threshold;
    std::size_t count;
};

// y = scale · sum + shift, and + y where it adds; scales and shift may be null.
struct RowFinish {
    const float *sums, *scales, *shift;
    float *y;
    std::size_t count;
    bool adds;
};

// products[n] = gate[n] · (scale_n · up[i] + bias_n) of the neurons n = ids[i], without ids of n = i; of those with
// |gate[n]| · norm_n up to the limit 0; or of these alone, where it is for what is left. Scales, biases and norms may be
// null.
struct RowNeurons {
    const float *gate, *up;
    const std::int32_t *ids;
    const float *scales, *biases, *norms;
    float limit;
    std::size_t count;
    float *products;
    bool left;
};

// By how much ids and values that are listed may be overwritten behind their end.
constexpr std::size_t kListSlack = 16;

struct RowSet {
    const char *name;
    void (*gather[3])(const RowGather &, std::size_t rows);  // by datatype
    void (*dots[3])(const RowDots &, std::size_t rows);
    void (*silu)(float *x, std::size_t count);
    void (*finish)(const RowFinish &);
    void (*join)(const RowNeurons &);
    // Of one row alone the ids of its active channels and their x − mean, [number of them + kListSlack] each, and how many
    // there are. The threshold is above 0.
    std::size_t (*choose)(const RowSaliency &row, std::int32_t *ids, float *values);
    // The greatest of some values, and −1 in taken for those that are at least the limit.
    float (*greatest)(const float *values, std::size_t count);
    void (*reach)(const float *values, std::size_t count, float limit, std::int32_t *taken);
    // Sets taken [count + kListSlack] of each active channel to −1, leaves the others, and counts the active ones. The
    // threshold is above 0.
    std::size_t (*mark)(const RowSaliency &row, std::int32_t *taken);
    // The ids of the channels that are taken, [number of them + kListSlack], and how many there are.
    std::size_t (*list)(const std::int32_t *taken, std::size_t count, std::int32_t *ids);
    // Of those that are taken x − mean where they are active in this row and 0 where not, likewise.
    void (*pick)(const RowSaliency &row, const std::int32_t *taken, float *values);
    // Of all channels x − mean where they are not active in this row and 0 where they are.
    void (*leave)(const RowSaliency &row, float *values);
    CoarseFunction coarse;
};

extern const RowSet kRowsPortable;
#if defined(SLUICE_X86)
extern const RowSet kRowsAvx2, kRowsAvx512, kRowsZen;
#endif

// The one for an instruction set and the processor that it was found on.
const RowSet &row_set_of(const InstructionSet &set);

}  // namespace sluice
