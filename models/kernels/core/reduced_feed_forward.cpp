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

// The neurons that the first product makes, and what they are multiplied by: 1, or 0 for those that are not active.
struct Neurons {
    std::vector<std::int32_t> ids;
    std::vector<float> kept;

    // The second product reads lines, or whole tiles of them, in which some neurons may not be active: all that are in the
    // same `granule` as an active one.
    Neurons(Channels active, std::size_t granule, std::size_t all) {
        std::size_t end = 0;  // of the latest granule
        for (std::size_t k = 0; k < active.count; ++k) {
            const std::size_t neuron = active[k], first = neuron / granule * granule;
            if (neuron >= end) {
                end = std::min(first + granule, all);
                for (std::size_t i = first; i < end; ++i) ids.push_back(static_cast<std::int32_t>(i));
                kept.resize(ids.size());
            }
            kept[ids.size() - (end - neuron)] = 1.0f;
        }
    }
};

struct FeedForward {
    const ReducedWeights &up, &down;
    Channels made;  // neurons
    Plan up_plan, down_plan;
    const Epilogue &first, &second;

    // Of some rows, the first of which is `first_row` of all.
    void run(const InputRows &x, std::size_t first_row, float *out) const {
        FeedForwardScratch &scratch = feed_forward_scratch();
        ReducedProduct making{up, made, first, scratch.up};
        ReducedProduct summing{down, {nullptr, down.outputs}, second, scratch.down};
        Inputs(up, {nullptr, up.inputs}).lay_out(up_plan.inputs, scratch.up);
        Inputs(down, made).lay_out(down_plan.inputs, scratch.down);
        making.find_strips(up_plan);
        summing.find_strips(down_plan);
        const bool packed = !scratch.up.part.empty() || !scratch.down.part.empty();
        const std::size_t most = packed ? x.count : kRowsTogether;  // what is packed is so once
        for (std::size_t at = 0; at < x.count; at += most) {
            const std::size_t count = std::min(most, x.count - at), begin = (first_row + at) * down.outputs;
            making.set_rows(count);
            summing.set_rows(count);
            making.round_rows(x.part(at, count), up.inputs);
            std::uint8_t *neurons = summing.reserve_rows();
            making.job.rounded = neurons;
            making.job.rounded_tile_bytes = summing.job.tile_bytes;
            clear_end(neurons, summing.job);
            making.run(nullptr, nullptr, 0);
            summing.job.activations = neurons;
            summing.run(out + begin, second.residual ? second.residual + begin : nullptr, down.outputs);
        }
    }

    // What no strip of neurons writes in the last step is multiplied by zeros, and must be a number.
    void clear_end(std::uint8_t *neurons, const Job &job) const {
        const std::size_t step_bytes = kTileLines * sizeof(Line);
        if (made.count % tile_inputs(Datatype::bf16) == 0) return;
        for (std::size_t tile = 0; tile < job.tiles; ++tile)
            std::memset(neurons + (tile + 1) * job.tile_bytes - step_bytes, 0, step_bytes);
    }
};

}  // namespace

void feed_forward_reduced(const ReducedWeights &up, const ReducedWeights &down, const InputRows &x, Channels neurons,
                          const Epilogue &first, const Epilogue &second, float *out, Threads *threads) {
    if (x.count == 0) return;
    const Channels outputs{nullptr, down.outputs};
    const Plan down_plan = ReducedProduct{down, outputs, second, feed_forward_scratch().down}.plan(
        Inputs(down, neurons), divide_up(x.count, kTileLines));
    const std::size_t granule = down_plan.inputs ? group_size(Datatype::bf16) : tile_inputs(Datatype::bf16);
    // Packed lines of neurons begin anywhere in the strips of the first product: those are packed as well.
    const Plan up_plan{down_plan.inputs, down_plan.inputs};
    Epilogue making = first;
    const std::optional<Neurons> some = neurons.ids ? std::optional<Neurons>(std::in_place, neurons, granule, up.outputs)
                                                    : std::nullopt;
    if (some) making.saliency = some->kept.data();
    const Channels made = some ? Channels{some->ids.data(), some->ids.size()} : neurons;
    const FeedForward whole{up, down, made, up_plan, down_plan, making, second};
    const std::size_t tiles = divide_up(x.count, kTileLines), parts = threads ? std::min(threads->count(), tiles) : 1;
    if (parts == 1) return whole.run(x, 0, out);
    threads->run(parts, [&](std::size_t part) {
        const std::size_t begin = part * tiles / parts * kTileLines,
                          end = std::min((part + 1) * tiles / parts * kTileLines, x.count);
        whole.run(x.part(begin, end - begin), begin, out);
    });
}

}  // namespace sluice
