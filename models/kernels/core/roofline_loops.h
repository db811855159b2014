// What a core can do at most: arithmetic on registers alone, and reading memory. Benchmarks set the kernels beside it.
#pragma once

#include "vector.h"

namespace sluice {
namespace {

// Rounds of multiply-adds on `Sums` vectors, none of which waits for another; enough of them hide the latency. Returns
// how many multiply-accumulates that was.
template <std::size_t Sums>
std::size_t accumulate(std::size_t rounds) {
    Vector sum[Sums];  // that begin apart, or a compiler would see that they are all the same
    for (std::size_t i = 0; i < Sums; ++i) sum[i] = broadcast(static_cast<float>(i));
    const Vector factor = broadcast(0.5f), term = broadcast(1.0f);
    for (std::size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
        for (std::size_t i = 0; i < Sums; ++i) sum[i] = sum[i] * factor + term;
    }
    volatile float kept = 0;
    for (std::size_t i = 0; i < Sums; ++i) kept = kept + sum_of(sum[i]);
    return rounds * Sums * kLanes;
}

float read(const float *x, std::size_t count) {
    constexpr std::size_t kSums = 8;
    Vector sum[kSums] = {};
    std::size_t i = 0;
    for (; i + kSums * kLanes <= count; i += kSums * kLanes) {
#pragma GCC unroll 8
        for (std::size_t v = 0; v < kSums; ++v) sum[v] += load(x + i + v * kLanes);
    }
    float total = 0;
    for (; i < count; ++i) total += x[i];
    for (std::size_t v = 0; v < kSums; ++v) total += sum_of(sum[v]);
    return total;
}

}  // namespace
}  // namespace sluice
