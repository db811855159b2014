#include "positions.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace sluice {
namespace {

// Pairs for which a thread keeps memory: those of a long text that says one word over and over are far more.
constexpr std::size_t kMostKept = 1 << 20;

struct Pair {
    float likeness;
    std::int32_t before, behind;

    bool operator<(const Pair &other) const {
        if (likeness != other.likeness) return likeness > other.likeness;
        return before != other.before ? before < other.before : behind < other.behind;
    }
};

// Those of rows from 1 on that are alike enough, in any order.
void find_pairs(const InstructionSet &set, const float *rows, std::size_t count, std::size_t width, float threshold,
                std::vector<Pair> &pairs) {
    constexpr std::size_t kTogether = 8;  // rows that are compared with all behind the first of them
    thread_local std::vector<float> scales, likeness;
    scales.resize(count);
    likeness.resize(kTogether * count);
    for (std::size_t i = 1; i < count; ++i) {
        const float *row = rows + i * width;
        set.products({row, width, 1, row, width, 1, width, 1.0f, &scales[i], 1});
        scales[i] = 1.0f / std::max(std::sqrt(scales[i]), 1e-30f);
    }
    pairs.clear();
    for (std::size_t first = 1; first + 1 < count; first += kTogether) {
        const std::size_t together = std::min(kTogether, count - 1 - first), others = count - 1 - first;
        set.products({rows + first * width, width, together, rows + (first + 1) * width, width, others, width, 1.0f,
                      likeness.data(), others});
        for (std::size_t i = first; i < first + together; ++i) {
            float *own = likeness.data() + (i - first) * others;
            const float scale = scales[i];
            std::size_t near = 0;  // counted first, in vectors: most rows are like none
            for (std::size_t j = i + 1; j < count; ++j) {
                float &cosine = own[j - first - 1];
                cosine = cosine * scale * scales[j];  // both scales at once may be infinite
                near += 1.0f - cosine <= threshold;
            }
            for (std::size_t j = i + 1; near > 0 && j < count; ++j) {
                const float cosine = own[j - first - 1];
                if (!(1.0f - cosine <= threshold)) continue;
                pairs.push_back({cosine, static_cast<std::int32_t>(i), static_cast<std::int32_t>(j)});
                --near;
            }
        }
    }
}

}  // namespace

std::size_t match_rows(const InstructionSet &set, const float *rows, std::size_t count, std::size_t width,
                       float threshold, std::int32_t *target) {
    for (std::size_t i = 0; i < count; ++i) target[i] = static_cast<std::int32_t>(i);
    thread_local std::vector<Pair> pairs;
    thread_local std::vector<char> joined;  // whether others have joined a row
    find_pairs(set, rows, count, width, threshold, pairs);
    std::sort(pairs.begin(), pairs.end());
    joined.assign(count, 0);
    std::size_t left = count;
    for (const Pair &pair : pairs) {
        const auto [likeness, before, behind] = pair;
        if (target[before] != before || target[behind] != behind || (joined[before] && joined[behind])) continue;
        const std::int32_t stays = joined[behind] ? behind : before;
        target[before] = target[behind] = stays;
        joined[stays] = 1;
        --left;
    }
    if (pairs.capacity() > kMostKept) std::vector<Pair>().swap(pairs);
    return left;
}

void join_rows(const InstructionSet &set, const Rows &rows, const std::int32_t *target, float *out, float *out_sizes) {
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
