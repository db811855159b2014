#include <cstring>
#include <optional>

#include "reduced_product.h"

namespace sluice {
namespace {

struct FeedForwardScratch {
    ReducedScratch up, down;
};

FeedForwardScratch &feed_forward_scratch() {
    thread_local FeedForwardScratch kept;
    return kept;
}

constexpr std::size_t kTileNeurons = tile_inputs(Datatype::bf16);

// The neurons that the first product makes, and what they are multiplied by: 1, or 0 for those that are not active. The
// second product reads whole tiles of them, so all are made that share one with an active neuron.
struct Neurons {
    std::vector<std::int32_t> ids;
    std::vector<float> kept;

    Neurons(Channels active, std::size_t all) {
        std::size_t end = 0;  // of the latest tile
        for (std::size_t k = 0; k < active.count; ++k) {
            const std::size_t neuron = active[k];
            if (neuron >= end) {
                const std::size_t first = neuron / kTileNeurons * kTileNeurons;
                end = std::min(first + kTileNeurons, all);
                for (std::size_t i = first; i < end; ++i) ids.push_back(static_cast<std::int32_t>(i));
                kept.resize(ids.size());
            }
            kept[ids.size() - (end - neuron)] = 1.0f;
        }
    }
};

// Rows are taken some tiles at a time, so that their neurons stay in the second cache until they are summed.
struct FeedForward {
    const ReducedWeights &up, &down;
    Channels neurons;
    const Epilogue &first, &second;

    // Of some rows, the first of which is `first_row` of all.
    void run(const InputRows &x, std::size_t first_row, float *out) const {
        FeedForwardScratch &scratch = feed_forward_scratch();
        ReducedProduct making{up, neurons, first, scratch.up};
        ReducedProduct summing{down, {nullptr, down.outputs}, second, scratch.down};
        Inputs(up, {nullptr, up.inputs}).lay_out(false, scratch.up);
        Inputs(down, neurons).lay_out(false, scratch.down);
        making.find_strips({});
        summing.find_strips({});
        const std::size_t together = up.set->neuron_tiles * kTileLines;
        for (std::size_t at = 0; at < x.count; at += together) {
            const std::size_t count = std::min(together, x.count - at), begin = (first_row + at) * down.outputs;
            making.set_rows(count);
            summing.set_rows(count);
            making.round_rows(x.part(at, count), up.inputs);
            std::uint8_t *values = summing.reserve_rows();
            clear_end(values, summing.job);
            making.job.rounded = values;
            making.job.rounded_tile_bytes = summing.job.tile_bytes;
            making.run(nullptr, nullptr, 0);
            summing.job.activations = values;
            summing.run(out + begin, second.residual ? second.residual + begin : nullptr, down.outputs);
        }
    }

    // What no strip of neurons writes in the last tile is multiplied by zeros, and must be a number.
    void clear_end(std::uint8_t *values, const Job &job) const {
        if (neurons.count % kTileNeurons == 0) return;
        const std::size_t bytes = kTileLines * sizeof(Line);
        for (std::size_t tile = 1; tile <= job.tiles; ++tile) std::memset(values + tile * job.tile_bytes - bytes, 0, bytes);
    }
};

}  // namespace

bool feed_forward_reduced(const ReducedWeights &up, const ReducedWeights &down, const InputRows &x, Channels neurons,
                          const Epilogue &first, const Epilogue &second, float *out, Threads *threads) {
    const std::size_t tiles = divide_up(x.count, kTileLines);
    const ReducedProduct summing{down, {nullptr, down.outputs}, second, feed_forward_scratch().down};
    if (summing.plan(Inputs(down, neurons), std::min(tiles, up.set->neuron_tiles)).inputs) return false;
    Epilogue making = first;
    std::optional<Neurons> made;
    if (neurons.ids) {
        made.emplace(neurons, up.outputs);
        making.saliency = made->kept.data();
        neurons = {made->ids.data(), made->ids.size()};
    }
    const FeedForward block{up, down, neurons, making, second};
    const std::size_t parts = threads ? std::min(threads->count(), tiles) : 1;
    if (parts <= 1) {
        block.run(x, 0, out);
        return true;
    }
    threads->run(parts, [&](std::size_t part) {
        const std::size_t begin = part * tiles / parts * kTileLines,
                          end = std::min((part + 1) * tiles / parts * kTileLines, x.count);
        block.run(x.part(begin, end - begin), begin, out);
    });
    return true;
}

}  // namespace sluice
