#include "embedding.h"

#include <cstring>

#include "reduced.h"
#include "weight_memory.h"

namespace sluice {

LookupTable empty_table(std::size_t rows, std::size_t width, bool rounded) {
    LookupTable table{rows, width, rounded, nullptr};
    table.data = weight_memory(table.bytes());
    return table;
}

void fill_rows(LookupTable &table, std::size_t first, std::size_t count, const float *values) {
    const std::size_t begin = first * table.width, items = count * table.width;
    if (!table.rounded) {
        std::memcpy(static_cast<float *>(table.data.get()) + begin, values, items * sizeof(float));
        return;
    }
    auto *to = static_cast<std::uint16_t *>(table.data.get()) + begin;
    for (std::size_t i = 0; i < items; ++i) to[i] = nearest_bf16(values[i]);
}

void embed_tokens(const InstructionSet &set, const float *words, const float *positions, const Tokens &tokens,
                  const Norm &norm) {
    constexpr std::size_t kAhead = 2;  // rows that are fetched meanwhile: only the ids tell which they are
    Norm row = norm;
    row.rows = 1;
    for (std::size_t i = 0; i < tokens.count; ++i) {
        if (i + kAhead < tokens.count) {
            const float *later = words + static_cast<std::size_t>(tokens.ids[i + kAhead]) * norm.channels;
            for (std::size_t c = 0; c < norm.channels; c += kLine) __builtin_prefetch(later + c);
        }
        row.x = words + static_cast<std::size_t>(tokens.ids[i]) * norm.channels;
        row.residual = positions + static_cast<std::size_t>(tokens.places[i]) * norm.channels;
        row.out = norm.out + i * norm.channels;
        row.factors = norm.factors + i;
        set.normalise(row);
    }
}

}  // namespace sluice
