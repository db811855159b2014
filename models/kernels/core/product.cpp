#include "product.h"

#include <algorithm>
#include <limits>

#include "spans.h"
#include "split_product.h"

namespace sluice {
namespace {

// A panel is packed that many inputs at a time and used at once, by all positions: at most 48 KiB of weights, and never
// cold.
constexpr std::size_t kPackedInputs = 192;

// Down to that many positions a wholly active block is used where it lies; beyond, packing it pays: later tiles then
// read a panel in the nearest cache, and not rows with gaps between them. Not where weights are fetched into that.
constexpr std::size_t kPositionsInPlace = 2 * kMaxRows;

// Up to that many positions, memory is slower than the arithmetic.
constexpr std::size_t kFewPositions = 4;

// A layer of more weights is in no cache, or in one that others share.
constexpr std::size_t kFarBytes = 64u << 20;

// The first tile over weights that nobody has fetched fetches them itself, so many rows before it reads them.
constexpr std::size_t kColdRows = 32;

// Weights that are read later, rows of the active inputs or, without their ids, of all that lies there. Null: none.
struct Ahead {
    const float *weights = nullptr;
    const std::int32_t *ids = nullptr;
};

struct TiledProduct : Product {
    // `cold`: the span's own weights were not fetched before.
    void run_span(const Span &span, const Ahead &ahead, bool cold) const {
        const Folded folded = fold(span.first, span.count);
        Tile tile{};
        tile.activation_tap = positions;
        tile.layer_tap = weights.inputs * kBlock;
        tile.in_place = span.in_place;
        tile.ahead_near = set.fetches_near;
        constexpr float kInfinity = std::numeric_limits<float>::infinity();
        const bool relu = epilogue.activation == Activation::relu || epilogue.activation == Activation::relu6;
        tile.floor = relu ? 0.0f : -kInfinity;
        tile.ceiling = epilogue.activation == Activation::relu6 ? 6.0f : kInfinity;
        tile.out_stride = stride;
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
                run_part(span, ahead, cold, folded, panel, tile, tap);
            }
        }
    }

    // All positions and columns of a span, over some of its inputs.
    void run_part(const Span &span, const Ahead &ahead, bool cold, const Folded &folded, const Panel &panel, Tile &tile,
                  std::size_t tap) const {
        const std::size_t width = set.vectors * set.lanes, first_tap = tap * tile.layer_tap;
        const bool whole = tile.first && tile.last, finishes = tile.last && epilogue.finishes();
        if (finishes) tile.last = false;
        alignas(64) float own_sums[kMaxRows * kBlock];
        float *sums = whole ? nullptr : scratch.sums.reserve(positions * kBlock);
        const float *columns = span.in_place ? block(span.first) + first_tap : panel.packed;
        bool pack = !span.in_place;
        for (std::size_t at = 0; at < span.count; at += width) {
            tile.weights = columns + at;
            tile.scale = folded.scale + at;
            tile.shift = folded.shift + at;
            tile.saliency = folded.saliency + at;
            tile.columns = std::min(width, span.count - at);
            const std::size_t vectors = divide_up(tile.columns, set.lanes);
            // Positions are shared out evenly: 49 are tiles of 5 and 6 rows, not 8 of 6 and a slow one of 1.
            const std::size_t tiles = divide_up(positions, set.rows[vectors - 1]);
            for (std::size_t i = 0; i < tiles; ++i) {
                const std::size_t position = i * positions / tiles, rows = (i + 1) * positions / tiles - position;
                tile.activations = activations + tap * positions + position;
                tile.sums = whole ? own_sums : sums + position * kBlock + at;
                tile.out = out + position * stride + span.first + at;
                if (cold && at == 0 && i == 0) {
                    tile.ahead_rows = weights.taps * inputs.count;
                    tile.ahead_index = nullptr;
                    tile.ahead = tile.weights + kColdRows * kBlock;
                } else if (ahead.weights) {
                    fetch(ahead, at / width * tiles + i, divide_up(span.count, width) * tiles, tile);
                } else {
                    tile.ahead_rows = 0;
                }
                if (pack) {
                    set.packing_tile(tile, panel, first_tap, rows, vectors);
                } else {
                    set.tile(tile, rows, vectors);
                }
                pack = false;
                if (finishes)
                    set.finish(finishing(tile.sums, folded, at, position, span.first + at, tile.columns), rows);
            }
        }
    }

    // Makes a tile fetch its share of weights that are read later. Rows of all taps lie one after another.
    void fetch(const Ahead &ahead, std::size_t share, std::size_t shares, Tile &tile) const {
        const std::size_t rows = ahead.ids ? inputs.count : weights.taps * inputs.count, begin = share * rows / shares;
        tile.ahead_rows = (share + 1) * rows / shares - begin;
        tile.ahead_index = ahead.ids ? ahead.ids + begin : nullptr;
        tile.ahead = ahead.weights + (ahead.ids ? 0 : begin * kBlock);
    }

    // What is fetched while a span is multiplied: the next one's weights, or behind the last block the layer that was
    // packed after this one, which in a model is the one that is called next.
    Ahead ahead_of(std::size_t span) const {
        const std::vector<Span> &spans = scratch.spans;
        if (!spans[span].in_place || (weights.taps > 1 && inputs.ids)) return {};
        if (span + 1 < spans.size()) return spans[span + 1].in_place ? Ahead{block(spans[span + 1].first), inputs.ids} : Ahead{};
        const bool last = output(outputs.count - 1) + 1 == weights.outputs;
        return last && !inputs.ids ? Ahead{block(spans[span].first) + weights.taps * weights.inputs * kBlock, nullptr} : Ahead{};
    }

    void run_spans() const {
        find_spans(set.fetches_near || !outputs.ids || !inputs.ids || positions <= kPositionsInPlace);
        for (std::size_t i = 0; i < scratch.spans.size(); ++i)
            run_span(scratch.spans[i], ahead_of(i), i == 0 && scratch.spans[i].in_place && !inputs.ids);
    }

    // A few positions: no panel would be used often enough to be worth packing, so whole cache lines are multiplied, and
    // the sums of active outputs are picked.
    void run_lines() const {
        Lines lines{};
        lines.index = inputs.ids;
        lines.depth = inputs.count;
        lines.stride = kBlock;
        lines.far = weights.inputs * weights.outputs * sizeof(float) > kFarBytes;
        alignas(64) float sums[kFewPositions * kBlock] = {};
        lines.sums = sums;
        for (std::size_t first = 0, count = 0; first < outputs.count; first += count) {
            count = in_block(first);
            lines.weights = block(first);
            lines.next = first + count < outputs.count ? block(first + count) : nullptr;
            lines.count = 0;
            std::size_t columns[kBlock];
            for (std::size_t j = 0; j < count; ++j) {
                const std::size_t column = output(first + j) % kBlock, line = column / kLine * kLine;
                if (lines.count == 0 || lines.offsets[lines.count - 1] != line) lines.offsets[lines.count++] = line;
                columns[j] = (lines.count - 1) * kLine + column % kLine;
            }
            const Folded folded = fold(first, count);
            for (std::size_t position = 0, rows = 0; position < positions; position += rows) {
                rows = std::min(positions - position, set.few_rows);
                lines.activations = activations + position;
                set.lines(lines, rows);
                for (std::size_t row = 0; row < rows; ++row) {
                    float *own = sums + row * kBlock;
                    for (std::size_t j = 0; j < count; ++j) own[j] = own[columns[j]];
                }
                set.finish(finishing(sums, folded, 0, position, first, count), rows);
            }
        }
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
              Channels inputs, Channels outputs, const Epilogue &epilogue, Scratch &scratch, float *out,
              std::size_t stride) {
    if (positions == 0 || outputs.count == 0) return;
    const TiledProduct product{{set, weights, activations, positions, inputs, outputs, epilogue, scratch, out, stride}};
    if (set.split && multiply_split(product)) return;
    if (weights.taps == 1 && positions <= kFewPositions) {
        product.run_lines();
    } else {
        product.run_spans();
    }
}

}  // namespace sluice
