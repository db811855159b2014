#include "rows.h"

#include <algorithm>
#include <cmath>

#include "memory.h"
#include "weight_memory.h"

namespace sluice {
namespace {

constexpr std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// The widest block, in groups: its sums stay in the nearest cache. The weights of a channel lie together in it, and the
// more of them the less is fetched in vain beside those of an inactive one.
constexpr std::size_t kMostGroups = 64;

// Bytes of weights that are unpacked at a time for many rows.
constexpr std::size_t kUnpackedBytes = 1u << 20;

// Evenly wide blocks, of whole cache lines.
std::size_t block_groups(std::size_t outputs, Datatype datatype) {
    const std::size_t step = datatype == Datatype::int8 ? 2 : 1, groups = divide_up(outputs, kGroup);
    return divide_up(divide_up(groups, divide_up(groups, kMostGroups)), step) * step;
}

// One value into its place in a row.
void put(std::uint8_t *row, std::size_t at, float value, Datatype datatype) {
    if (datatype == Datatype::fp32) {
        std::memcpy(row + 4 * at, &value, 4);
    } else if (datatype == Datatype::bf16) {
        const std::size_t i = at % kGroup;
        const std::uint16_t number = nearest_bf16(value);
        std::memcpy(row + 2 * (at - i + i % 16 * 2 + i / 16), &number, 2);
    } else {
        const auto number = static_cast<std::int8_t>(std::nearbyint(value));
        std::memcpy(row + at, &number, 1);
    }
}

// The scale of each output, and what its weights are multiplied by to be whole numbers.
void set_scales(RowWeights &w, const float *weight, std::vector<float> &factors) {
    w.scales.assign(w.outputs, 0.0f);
    for (std::size_t o = 0; o < w.outputs; ++o) {
        float largest = 0;
        for (std::size_t k = 0; k < w.inputs; ++k) largest = std::max(largest, std::abs(weight[o * w.inputs + k]));
        factors[o] = 127.0f / largest;
        if (std::isfinite(factors[o])) {
            w.scales[o] = largest / 127.0f;
        } else {  // zeros, or too small for a scale
            factors[o] = 0;
        }
    }
}

struct Unpacking {
    std::shared_ptr<Line[]> lines;
    std::size_t line_count = 0;
    FloatBuffer floats, result, shift, scales;
};

Unpacking &unpacking() {
    thread_local Unpacking kept;
    return kept;
}

std::uint32_t bits_of(std::int8_t number) {
    const float value = number;
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits >> 16;  // exact: a whole number up to 127 has seven bits
}

// 16 columns of the inputs k and k + 1 of a row each, the first or the second half of a group of 32.
void pair_up(const std::uint8_t *one, const std::uint8_t *two, Datatype datatype, bool second, Line &line) {
    std::uint32_t pairs[kColumns];
    if (datatype == Datatype::bf16) {
        const auto *a = reinterpret_cast<const std::uint32_t *>(one), *b = reinterpret_cast<const std::uint32_t *>(two);
        for (std::size_t j = 0; j < kColumns; ++j)
            pairs[j] = second ? a[j] >> 16 | (b[j] & 0xffff0000u) : (a[j] & 0xffffu) | b[j] << 16;
    } else {
        const auto *a = reinterpret_cast<const std::int8_t *>(one) + second * kColumns,
                   *b = reinterpret_cast<const std::int8_t *>(two) + second * kColumns;
        for (std::size_t j = 0; j < kColumns; ++j) pairs[j] = bits_of(a[j]) | bits_of(b[j]) << 16;
    }
    std::memcpy(line.bytes, pairs, sizeof pairs);
}

// The pairs of inputs of one output, as bf16, into one column of the lines; nothing of it is read without a row.
void spread_pairs(const std::uint8_t *row, Datatype datatype, std::size_t pairs, std::size_t column, Line *lines) {
    const auto put = [&](std::size_t g, std::uint32_t pair) {
        std::memcpy(lines[g].bytes + 4 * column, &pair, 4);
    };
    if (!row) {
        for (std::size_t g = 0; g < pairs; ++g) put(g, 0);
        return;
    }
    if (datatype == Datatype::int8) {
        const auto *numbers = reinterpret_cast<const std::int8_t *>(row);
        for (std::size_t g = 0; g < pairs; ++g) put(g, bits_of(numbers[2 * g]) | bits_of(numbers[2 * g + 1]) << 16);
        return;
    }
    // A group of 32 is 16 words, of its i-th and its (16 + i)-th value each.
    const auto *words = reinterpret_cast<const std::uint32_t *>(row);
    for (std::size_t first = 0; first < pairs; first += kGroup / 2, words += kGroup / 2) {
        const std::size_t lower = std::min<std::size_t>(pairs - first, 8), upper = std::min(pairs - first, kGroup / 2);
        for (std::size_t i = 0; i < lower; ++i) put(first + i, (words[2 * i] & 0xffffu) | words[2 * i + 1] << 16);
        for (std::size_t i = 8; i < upper; ++i)
            put(first + i, words[2 * i - 16] >> 16 | (words[2 * i - 15] & 0xffff0000u));
    }
}

std::size_t nth(Channels channels, std::size_t index) {
    return channels.ids ? static_cast<std::size_t>(channels.ids[index]) : index;
}

// The active outputs first … first + count, of whole strips, as strips of 16.
void unpack_lines(const RowWeights &w, Channels inputs, Channels outputs, std::size_t first, std::size_t count,
                  std::size_t tap_lines, Line *lines) {
    const std::size_t pairs = divide_up(inputs.count, 2);
    for (std::size_t strip = 0; strip * kColumns < count; ++strip, lines += tap_lines) {
        const std::size_t column = first + strip * kColumns;
        if (w.by_input) {
            const std::size_t width = w.groups * kGroup, block = column / width, at = column % width;
            const std::size_t offset = at / kGroup * kGroup * item_bytes(w.datatype);
            static const std::uint8_t zeros[2 * kGroup] = {};
            for (std::size_t g = 0; g < pairs; ++g) {
                const std::uint8_t *one = w.row(block, nth(inputs, 2 * g)) + offset;
                const std::uint8_t *two = 2 * g + 1 < inputs.count ? w.row(block, nth(inputs, 2 * g + 1)) + offset : zeros;
                pair_up(one, two, w.datatype, at % kGroup >= kColumns, lines[g]);
            }
        } else {
            for (std::size_t j = 0; j < kColumns; ++j) {
                const std::uint8_t *row = column + j < outputs.count ? w.row(0, nth(outputs, column + j)) : nullptr;
                spread_pairs(row, w.datatype, pairs, j, lines);
            }
        }
        for (std::size_t g = pairs; g < tap_lines; ++g) lines[g] = Line{};
    }
}

// The same of fp32, as blocks of 64.
void unpack_floats(const RowWeights &w, Channels inputs, Channels outputs, std::size_t first, std::size_t count,
                   float *packed) {
    const std::size_t width = w.groups * kGroup;
    const auto place = [&](std::size_t column) {
        return packed + (column - first) / kBlock * inputs.count * kBlock + (column - first) % kBlock;
    };
    if (!w.by_input) {
        for (std::size_t column = first; column < first + count; ++column) {
            const std::uint8_t *row = w.row(0, nth(outputs, column));
            float *to = place(column);
            for (std::size_t k = 0; k < w.inputs; ++k) std::memcpy(to + k * kBlock, row + 4 * k, 4);
        }
        return;
    }
    for (std::size_t column = first; column < first + count; column += kGroup) {
        float *to = place(column);
        for (std::size_t k = 0; k < inputs.count; ++k)
            std::memcpy(to + k * kBlock, w.row(column / width, nth(inputs, k)) + column % width * 4, kGroup * 4);
    }
}

// Of the active outputs, one after the other.
const float *gathered(const std::vector<float> &values, Channels outputs, FloatBuffer &buffer) {
    if (values.empty() || !outputs.ids) return values.empty() ? nullptr : values.data();
    float *to = buffer.reserve(outputs.count);
    for (std::size_t i = 0; i < outputs.count; ++i) to[i] = values[nth(outputs, i)];
    return to;
}

}  // namespace

const RowSet &row_set_of(const InstructionSet &set) {
#if defined(SLUICE_X86)
    const auto is = [&](const char *name) { return std::strcmp(set.name, name) == 0; };
    if (is("avx512") || is("amx")) return set.fetches_near ? kRowsZen : kRowsAvx512;
    if (is("avx2")) return kRowsAvx2;
#endif
    (void)set;
    return kRowsPortable;
}

RowWeights empty_rows(std::size_t outputs, std::size_t inputs, Datatype datatype, bool by_input, const RowSet &set,
                      const InstructionSet &floats) {
    RowWeights w{datatype, by_input, outputs, inputs, 0, 1, &set, &floats, nullptr, nullptr, {}, {}, {}, {}, {}, nullptr};
    if (datatype != Datatype::fp32) w.reduced = reduced_sets(Datatype::bf16)[0];
    w.groups = by_input ? block_groups(outputs, datatype) : divide_up(inputs, kGroup);
    if (by_input) w.blocks = divide_up(outputs, w.groups * kGroup);
    w.data = weight_memory(w.bytes());
    return w;
}

RowWeights pack_rows(const float *weight, std::size_t outputs, std::size_t inputs, Datatype datatype, bool by_input,
                     const RowSet &set, const InstructionSet &floats) {
    RowWeights w = empty_rows(outputs, inputs, datatype, by_input, set, floats);
    w.norms.assign(inputs, 0.0f);
    for (std::size_t o = 0; o < outputs; ++o) {
        const float *from = weight + o * inputs;
        for (std::size_t k = 0; k < inputs; ++k) w.norms[k] += from[k] * from[k];
    }
    for (float &norm : w.norms) norm = std::sqrt(norm);
    std::vector<float> factors(outputs, 1.0f);
    if (datatype == Datatype::int8) set_scales(w, weight, factors);
    const std::size_t width = w.groups * kGroup;
    for (std::size_t first = 0; first < outputs; first += kGroup) {  // a group at a time: its places are neighbours
        const std::size_t count = std::min(kGroup, outputs - first);
        for (std::size_t k = 0; k < inputs; ++k) {
            const float *from = weight + first * inputs + k;
            for (std::size_t j = 0; j < count; ++j) {
                const std::size_t o = first + j;
                auto *row = const_cast<std::uint8_t *>(by_input ? w.row(o / width, k) : w.row(0, o));
                put(row, by_input ? o % width : k, from[j * inputs] * factors[o], datatype);
            }
        }
    }
    return w;
}

void sum_few(const RowWeights &w, const float *const *x, std::size_t rows, Channels inputs, Channels outputs,
             float *const *sums) {
    const auto kind = static_cast<std::size_t>(w.datatype);
    if (!w.by_input) {
        w.set->dots[kind]({w.row(0, 0), w.row_bytes(), outputs.ids, outputs.count, x, sums, w.groups}, rows);
        return;
    }
    for (std::size_t block = 0; block < w.blocks; ++block) {
        w.set->gather[kind]({w.row(block, 0), w.row_bytes(), inputs.ids, inputs.count, x, sums,
                             block * w.groups * kGroup, w.groups},
                            rows);
    }
}

void multiply_many(const RowWeights &w, const float *x, std::size_t rows, Channels inputs, Channels outputs,
                   const float *residual, float *out) {
    if (rows == 0 || outputs.count == 0) return;
    Unpacking &kept = unpacking();
    const float *shift = gathered(w.bias, outputs, kept.shift), *scales = gathered(w.scales, outputs, kept.scales);
    const std::size_t item = w.datatype == Datatype::fp32 ? 4 : 2;
    std::size_t part = kUnpackedBytes / (std::max<std::size_t>(inputs.count, 1) * item) / kBlock * kBlock;
    part = std::min(std::max(part, kBlock), divide_up(outputs.count, kBlock) * kBlock);
    float *result = kept.result.reserve(rows * part);
    ReducedWeights reduced{Datatype::bf16, w.reduced, 0, inputs.count, 1, 0, nullptr, {}};
    for (std::size_t first = 0; first < outputs.count; first += part) {
        const std::size_t count = std::min(part, outputs.count - first);
        Epilogue epilogue;
        if (shift) epilogue.shift = shift + first;
        if (w.datatype == Datatype::fp32) {
            float *packed = kept.floats.reserve(packed_size(part, inputs.count, 1));
            unpack_floats(w, inputs, outputs, first, count, packed);
            multiply_matrix(*w.floats, {packed, count, inputs.count, 1}, {x, rows, inputs.count}, {nullptr, inputs.count},
                            {nullptr, count}, epilogue, result);
        } else {
            reduced.outputs = count;
            const std::size_t strips = divide_up(count, kColumns), lines = strips * reduced.tap_lines();
            if (kept.line_count < lines) {
                kept.lines.reset(new Line[lines]);
                kept.line_count = lines;
            }
            reduced.lines = kept.lines;
            reduced.line_count = lines;
            unpack_lines(w, inputs, outputs, first, count, reduced.tap_lines(), kept.lines.get());
            if (scales) epilogue.scale = scales + first;
            multiply_reduced(reduced, {x, rows, inputs.count}, {nullptr, inputs.count}, {nullptr, count}, epilogue, result);
        }
        for (std::size_t r = 0; r < rows; ++r) {
            const std::size_t at = r * outputs.count + first;
            const float *from = result + r * count, *added = residual ? residual + at : nullptr;
            for (std::size_t j = 0; j < count; ++j) out[at + j] = from[j] + (added ? added[j] : 0.0f);
        }
    }
}

}  // namespace sluice
