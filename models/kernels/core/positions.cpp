#include "positions.h"

#include <algorithm>
#include <cmath>

namespace sluice {

std::size_t match_rows(const InstructionSet &set, const Rows &rows, float threshold,
                       std::vector<std::int32_t> &target) {
    const std::size_t n = rows.count, width = rows.width, odd = n / 2;
    target.resize(n);
    for (std::size_t i = 0; i < n; ++i) target[i] = static_cast<std::int32_t>(i);
    if (n < 3) return n;
    const std::size_t even = (n - 1) / 2;  // but for the first
    thread_local std::vector<float> scales, likeness;
    scales.resize(n);
    likeness.resize(even * odd);
    for (std::size_t i = 0; i < n; ++i) {
        const float *row = rows.values + i * width;
        set.products({row, width, 1, row, width, 1, width, 1.0f, &scales[i], 1});
        scales[i] = 1.0f / std::max(std::sqrt(scales[i]), 1e-30f);
    }
    set.products({rows.values + 2 * width, 2 * width, even, rows.values + width, 2 * width, odd, width, 1.0f,
                  likeness.data(), odd});
    std::size_t left = n;
    for (std::size_t i = 2; i < n; i += 2) {
        const float *own = likeness.data() + (i / 2 - 1) * odd;
        std::size_t nearest = 0;
        float greatest = -2.0f;
        for (std::size_t j = 0; j < odd; ++j) {
            const float cosine = own[j] * scales[i] * scales[2 * j + 1];
            if (cosine > greatest) greatest = cosine, nearest = j;
        }
        if (1.0f - greatest > threshold) continue;
        target[i] = static_cast<std::int32_t>(2 * nearest + 1);
        --left;
    }
    return left;
}

void join_rows(const InstructionSet &set, const Rows &rows, const std::vector<std::int32_t> &target, float *out,
               float *out_sizes) {
    const std::size_t width = rows.width;
    thread_local std::vector<std::size_t> places;
    places.resize(rows.count);
    std::size_t left = 0;
    for (std::size_t i = 0; i < rows.count; ++i) {
        if (static_cast<std::size_t>(target[i]) != i) continue;
        places[i] = left;
        std::copy_n(rows.values + i * width, width, out + left * width);
        out_sizes[left++] = rows.sizes[i];
    }
    // A row at a time, mean ← mean + (row − mean) · its share of both.
    for (std::size_t i = 0; i < rows.count; ++i) {
        if (static_cast<std::size_t>(target[i]) == i) continue;
        const std::size_t place = places[static_cast<std::size_t>(target[i])];
        float *mean = out + place * width;
        out_sizes[place] += rows.sizes[i];
        const float share = rows.sizes[i] / out_sizes[place];
        for (std::size_t c = 0; c < width; ++c) mean[c] *= 1.0f - share;
        set.add_scaled(rows.values + i * width, share, width, mean);
    }
}

}  // namespace sluice
