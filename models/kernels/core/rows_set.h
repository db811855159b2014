// The products with a few rows, once per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "reduced_set.h"

namespace sluice {

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

struct RowSet {
    const char *name;
    void (*gather[3])(const RowGather &, std::size_t rows);  // by datatype
    void (*dots[3])(const RowDots &, std::size_t rows);
    void (*silu)(float *x, std::size_t count);
};

extern const RowSet kRowsPortable;
#if defined(SLUICE_X86)
extern const RowSet kRowsAvx2, kRowsAvx512;
#endif

// That of an instruction set, else the portable one.
const RowSet &row_set_named(const char *name);

}  // namespace sluice
