#include "words.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "memory.h"

namespace sluice {
namespace {

struct Workspace {
    FloatBuffer values, candidates, state;
};

Workspace &workspace() {
    thread_local Workspace kept;
    return kept;
}

// Values that are looked at together: a loop without branches that the compiler makes vectors of.
constexpr std::size_t kTogether = 32;

// Makes sums logits, and returns the greatest. What is no number is never likely.
float finish(const RowWeights &preview, const float *possible, float *values) {
    const float *scales = preview.scales.empty() ? nullptr : preview.scales.data();
    float greatest[kTogether];
    std::fill_n(greatest, kTogether, -INFINITY);
    for (std::size_t first = 0; first < preview.outputs; first += kTogether) {
        const std::size_t count = std::min(kTogether, preview.outputs - first);
        for (std::size_t j = 0; j < count; ++j) {
            const std::size_t at = first + j;
            const float value = (scales ? values[at] * scales[at] : values[at]) + possible[at];
            values[at] = value == value ? value : -INFINITY;
            greatest[j] = values[at] > greatest[j] ? values[at] : greatest[j];
        }
    }
    return *std::max_element(greatest, greatest + kTogether);
}

// Calls found(id) for each value that is at least the limit.
template <typename Found>
void each_from(const float *values, std::size_t count, float limit, Found found) {
    for (std::size_t first = 0; first < count; first += kTogether) {
        const std::size_t end = std::min(first + kTogether, count);
        int any = 0;
        for (std::size_t j = first; j < end; ++j) any |= values[j] >= limit;
        if (!any) continue;
        for (std::size_t j = first; j < end; ++j) {
            if (values[j] >= limit) found(j);
        }
    }
}

}  // namespace

std::size_t likely_words(const RowWeights &preview, const float *seen, const RowWeights &words, const float *state,
                         const float *possible, float margin, std::size_t most, std::int32_t *ids, float *logits) {
    Workspace &work = workspace();
    const std::size_t n = preview.outputs;
    float *values = work.values.reserve(preview.padded_outputs());
    sum_few(preview, &seen, 1, {nullptr, preview.inputs}, {nullptr, n}, &values);
    float limit = finish(preview, possible, values) - margin;
    float *candidates = work.candidates.reserve(n);
    std::size_t count = 0;
    each_from(values, n, limit, [&](std::size_t j) { candidates[count++] = values[j]; });
    if (count > most) {
        std::nth_element(candidates, candidates + most - 1, candidates + count, std::greater<float>());
        limit = candidates[most - 1];
    }
    count = 0;
    each_from(values, n, limit, [&](std::size_t j) { ids[count++] = static_cast<std::int32_t>(j); });
    float *padded = work.state.reserve(words.groups * kGroup);
    std::fill(std::copy_n(state, words.inputs, padded), padded + words.groups * kGroup, 0.0f);
    const float *from = padded;
    sum_few(words, &from, 1, {nullptr, words.inputs}, {ids, count}, &logits);
    for (std::size_t i = 0; i < count; ++i) {
        const auto j = static_cast<std::size_t>(ids[i]);
        logits[i] = logits[i] * (words.scales.empty() ? 1.0f : words.scales[j]) + possible[j];
    }
    return count;
}

}  // namespace sluice
