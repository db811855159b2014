#include "product.h"

#include <algorithm>
#include <limits>

namespace sluice {
namespace {

// A panel is packed that many inputs at a time and used at once, by all positions: at most 48 KiB of weights, and never
// cold.
constexpr std::size_t kPackedInputs = 192;

// Down to that many positions a wholly active block is used where it lies; beyond, packing it pays: later tiles then
// read a panel in the nearest cache, and not rows with gaps between them.
constexpr std::size_t kPositionsInPlace = 2 * kMaxRows;

constexpr std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// Up to 64 active outputs, `first` … `first + count` of the list.
struct Span {
    std::size_t first, count;
    bool in_place;  // they are all of a block, and its weights are used where they lie
};

// The epilogue of a span, for each of its columns.
struct Folded {
    alignas(64) float scale[kBlock], shift[kBlock], saliency[kBlock], ones[kBlock];
};

struct Product {
    const InstructionSet &set;
    const Weights &weights;
    const float *const *activations;
    std::size_t positions;
    Channels inputs, outputs;
    const Epilogue &epilogue;
    Scratch &scratch;
    float *out;

    std::size_t output(std::size_t j) const { return outputs.ids ? static_cast<std::size_t>(outputs.ids[j]) : j; }

    // Calls visit for each span. Partly active blocks in a row are packed together, into spans of even width.
    template <typename Visit>
    void each_span(Visit visit) const {
        std::size_t waiting = 0;  // outputs before `first` that are to be packed
        for (std::size_t first = 0; first < outputs.count;) {
            const std::size_t block = output(first) / kBlock,
                              width = std::min(kBlock, weights.outputs - block * kBlock);
            std::size_t count = 1;
            if (outputs.ids) {
                while (first + count < outputs.count && output(first + count) / kBlock == block) ++count;
            } else {
                count = width;
            }
            if (count == width && (!outputs.ids || !inputs.ids || positions <= kPositionsInPlace)) {
                split(first - waiting, waiting, visit);
                waiting = 0;
                visit(Span{first, count, true});
            } else {
                waiting += count;
            }
            first += count;
        }
        split(outputs.count - waiting, waiting, visit);
    }

    template <typename Visit>
    void split(std::size_t first, std::size_t count, Visit visit) const {
        const std::size_t vectors = divide_up(count, set.lanes), spans = divide_up(count, kBlock);
        for (std::size_t i = 0; i < spans; ++i) {
            const std::size_t begin = i * vectors / spans * set.lanes;
            visit(Span{first + begin, std::min((i + 1) * vectors / spans * set.lanes, count) - begin, false});
        }
    }

    void run_span(const Span &span) const {
        Folded folded;
        for (std::size_t j = 0; j < kBlock; ++j) {
            const std::size_t position = span.first + std::min(j, span.count - 1), o = output(position);
            folded.scale[j] = epilogue.scale ? epilogue.scale[o] : 1.0f;
            folded.shift[j] = epilogue.shift ? epilogue.shift[o] : 0.0f;
            folded.saliency[j] = epilogue.saliency ? epilogue.saliency[position] : 1.0f;
            folded.ones[j] = 1.0f;
        }
        Tile tile{};
        tile.activation_tap = positions;
        tile.layer_tap = weights.inputs * kBlock;
        tile.in_place = span.in_place;
        constexpr float kInfinity = std::numeric_limits<float>::infinity();
        const bool relu = epilogue.activation == Activation::relu || epilogue.activation == Activation::relu6;
        tile.floor = relu ? 0.0f : -kInfinity;
        tile.ceiling = epilogue.activation == Activation::relu6 ? 6.0f : kInfinity;
        Panel panel;
        panel.block = weights.taps * tile.layer_tap;
        std::size_t most = SIZE_MAX;  // weights in place are streamed from wherever they are
        if (span.in_place) {
            tile.weight_row = kBlock;
            tile.weight_tap = tile.layer_tap;
        } else {
            most = kPackedInputs;
            panel.columns = outputs.ids + span.first;
            panel.count = span.count;
            panel.weights = weights.packed;
            panel.row = divide_up(span.count, set.lanes) * set.lanes;
            panel.packed = scratch.panel.reserve(kPackedInputs * kBlock);
            set.plan(panel);
            tile.weight_row = panel.row;
            tile.weight_tap = inputs.count * panel.row;
        }
        const std::size_t parts = span.in_place ? 1 : std::max(divide_up(inputs.count, most), std::size_t{1});
        tile.taps = inputs.count <= most / weights.taps ? weights.taps : 1;
        for (std::size_t tap = 0; tap < weights.taps; tap += tile.taps) {
            for (std::size_t part = 0; part < parts; ++part) {
                tile.begin = part * inputs.count / parts;
                tile.depth = (part + 1) * inputs.count / parts - tile.begin;
                tile.index = inputs.ids ? inputs.ids + tile.begin : nullptr;
                tile.first = tap == 0 && part == 0;
                tile.last = tap + tile.taps == weights.taps && part + 1 == parts;
                run_part(span, folded, panel, tile, tap);
            }
        }
    }

    // All positions and columns of a span, over some of its inputs.
    void run_part(const Span &span, const Folded &folded, const Panel &panel, Tile &tile, std::size_t tap) const {
        const std::size_t width = set.vectors * set.lanes, first_tap = tap * tile.layer_tap;
        const bool whole = tile.first && tile.last, finishes = tile.last && epilogue.finishes();
        alignas(64) float linear[kMaxRows * kBlock];
        tile.out_stride = finishes ? kBlock : outputs.count;
        float *sums = whole ? nullptr : scratch.sums.reserve(positions * kBlock);
        const float *columns =
            span.in_place ? weights.packed + output(span.first) / kBlock * panel.block + first_tap : panel.packed;
        bool pack = !span.in_place;
        for (std::size_t at = 0; at < span.count; at += width) {
            tile.weights = columns + at;
            tile.scale = folded.scale + at;
            tile.shift = folded.shift + at;
            tile.saliency = (finishes ? folded.ones : folded.saliency) + at;
            const std::size_t columns_left = std::min(width, span.count - at),
                              vectors = divide_up(columns_left, set.lanes);
            tile.columns = finishes ? vectors * set.lanes : columns_left;
            // Positions are shared out evenly: 49 are tiles of 5 and 6 rows, not 8 of 6 and a slow one of 1.
            const std::size_t tiles = divide_up(positions, set.rows[vectors - 1]);
            for (std::size_t i = 0; i < tiles; ++i) {
                const std::size_t position = i * positions / tiles, rows = (i + 1) * positions / tiles - position;
                tile.activations = activations + tap * positions + position;
                tile.sums = whole ? nullptr : sums + position * kBlock + at;
                const std::size_t place = position * outputs.count + span.first + at;
                tile.out = finishes ? linear : out + place;
                if (pack) {
                    set.packing_tile(tile, panel, first_tap, rows, vectors);
                } else {
                    set.tile(tile, rows, vectors);
                }
                pack = false;
                if (finishes) {
                    set.finish({epilogue.activation, linear, folded.saliency + at,
                                epilogue.residual ? epilogue.residual + place : nullptr, out + place, outputs.count,
                                columns_left},
                               rows);
                }
            }
        }
    }

    void run() const {
        each_span([this](const Span &span) { run_span(span); });
    }
};

}  // namespace

void pack_weights(const float *weight, std::size_t outputs, std::size_t inputs, std::size_t taps, float *packed) {
    for (std::size_t o = 0; o < outputs; ++o) {
        float *column = packed + o / kBlock * taps * inputs * kBlock + o % kBlock;
        for (std::size_t i = 0; i < inputs; ++i) {
            for (std::size_t tap = 0; tap < taps; ++tap) column[(tap * inputs + i) * kBlock] = *weight++;
        }
    }
}

void multiply(const InstructionSet &set, const Weights &weights, const float *const *activations, std::size_t positions,
              Channels inputs, Channels outputs, const Epilogue &epilogue, Scratch &scratch, float *out) {
    if (positions == 0 || outputs.count == 0) return;
    Product{set, weights, activations, positions, inputs, outputs, epilogue, scratch, out}.run();
}

}  // namespace sluice
