// Products in bf16 and int8 without instructions for them: bf16 is widened to float, int8 multiplied as integers.
#pragma once

#include "reduced_loops.h"

namespace sluice {
namespace {

inline float from_bf16(std::uint32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

// sums += one group of a position's inputs times a line.
inline void add_line(const std::uint8_t *x, const Line &line, float *sums) {
    std::uint32_t pair, columns[kColumns];
    __builtin_memcpy(&pair, x, 4);
    __builtin_memcpy(columns, line.bytes, 64);
    const float low = from_bf16(pair << 16), high = from_bf16(pair & 0xffff0000);
    for (std::size_t j = 0; j < kColumns; ++j)
        sums[j] += low * from_bf16(columns[j] << 16) + high * from_bf16(columns[j] & 0xffff0000);
}

inline void add_line(const std::uint8_t *x, const Line &line, std::int32_t *sums) {
    std::int8_t group[4], columns[4 * kColumns];
    __builtin_memcpy(group, x, 4);
    __builtin_memcpy(columns, line.bytes, 64);
    for (std::size_t j = 0; j < kColumns; ++j) {
        for (std::size_t i = 0; i < 4; ++i) sums[j] += group[i] * columns[4 * j + i];
    }
}

template <Datatype D>
void multiply(const Job &job) {
    each_block<Sum<D>>(job, 1, [&](std::size_t first, std::size_t, std::size_t tile, Sum<D> *sums) {
        const Strip *strip = job.strips + first;
        const std::uint8_t *activations = job.activations + tile * job.tile_bytes;
        for (std::size_t row = 0; row < job.tile_rows; ++row, sums += kColumns) {
            for (std::size_t j = 0; j < kColumns; ++j) sums[j] = 0;
            for (std::size_t s = 0; s < job.steps; ++s) {
                const std::uint8_t *x = activations + row * job.position_bytes + job.activation_steps[s];
                const Line *lines = strip->weights + job.weight_steps[s];
                for (std::size_t line = 0; line < kTileLines; ++line) add_line(x + 4 * line, lines[line], sums);
            }
        }
    });
}

template <Datatype D>
std::size_t accumulate(std::size_t rounds) {
    const std::uint8_t group[4] = {1, 1, 1, 1};
    const Line line{};
    Sum<D> sums[kColumns] = {};
    for (std::size_t round = 0; round < rounds; ++round) {
        asm volatile("" : : "r"(group), "r"(&line) : "memory");  // or they would be seen to add nothing
        add_line(group, line, sums);
    }
    asm volatile("" : : "r"(sums) : "memory");
    return rounds * kColumns * group_size(D);
}

template <Datatype D>
constexpr ReducedSet plain_set(const char *name) {
    return {name, 2, 1, 16, enter_nothing, leave_nothing, convert<D>, gather, multiply<D>, accumulate<D>};
}

}  // namespace
}  // namespace sluice
