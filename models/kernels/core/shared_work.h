// A product's active outputs, shared out over threads.
#pragma once

#include <algorithm>
#include <vector>

#include "product.h"
#include "threads.h"

namespace sluice {

// Where parts of the active outputs end that are as even as whole blocks of columns allow; or, of a list within few
// blocks, whole cache lines. What is skipped counts for nothing.
inline std::vector<std::size_t> shared_out(Channels outputs, std::size_t parts) {
    const std::size_t count = outputs.count;
    const std::size_t blocks = count ? outputs[count - 1] / kBlock - outputs[0] / kBlock + 1 : 0;
    const std::size_t unit = outputs.ids && blocks < 2 * parts ? kLine : kBlock;
    std::vector<std::size_t> ends;
    std::size_t edge = 0;  // the latest place where one may be cut
    for (std::size_t j = 1; j <= count; ++j) {
        if (j < count && outputs[j] / unit == outputs[j - 1] / unit) continue;
        const std::size_t wanted = (ends.size() + 1) * count / parts;
        if (j >= wanted || j == count) {
            const bool before = j < count && edge > (ends.empty() ? 0 : ends.back()) && wanted - edge < j - wanted;
            ends.push_back(before ? edge : j);
        }
        edge = j;
    }
    if (!ends.empty()) ends.back() = count;
    return ends;
}

// Calls run(outputs, epilogue, first) for parts of the active outputs, which begin with the first-th of them.
template <typename Run>
void share_outputs(Threads *threads, Channels outputs, const Epilogue &epilogue, Run run) {
    if (!threads || threads->count() == 1) return run(outputs, epilogue, 0);
    const std::vector<std::size_t> ends = shared_out(outputs, threads->count());
    threads->run(ends.size(), [&](std::size_t part) {
        const std::size_t first = part ? ends[part - 1] : 0;
        run(outputs.part(first, ends[part]), epilogue.from(first), first);
    });
}

}  // namespace sluice
