#include "product.h"

#include <algorithm>

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

// A span's weights are so many lines of a row at most, or are not fetched ahead.
constexpr std::size_t kMostLines = 12;

// The lines of a span in row 0 of their blocks.
struct SpanLines {
    const float *at[kMostLines];
    std::size_t count = 0;
};

// Rows of lines that are read later: these ids, or null for those from the first on.
struct Ahead {
    const SpanLines &lines;
    const std::int32_t *ids;
    std::size_t first, count;
};

struct TiledProduct : Product {
    // How the inputs of a span are cut up: those in place are read at once, of all taps, from wherever they are.
    struct Parts {
        std::size_t taps, of_tap, count;
    };
    Parts parts_of(const Span &span) const {
        if (span.in_place) return {weights.taps, 1, 1};
        if (inputs.count <= kPackedInputs / weights.taps) return {weights.taps, 1, 1};
        const std::size_t of_tap = std::max(divide_up(inputs.count, kPackedInputs), std::size_t{1});
        return {1, of_tap, of_tap * weights.taps};
    }

    // `cold`: the span's own weights were not fetched before.
    void run_span(std::size_t number, bool cold) const {
        const Span &span = scratch.spans[number];
        const Folded folded = fold(span.first, span.count);
        Tile tile{};
        tile.activation_tap = positions;
        tile.layer_tap = weights.inputs * kBlock;
        tile.in_place = span.in_place;
        tile.ahead_near = set.fetches_near;
        tile.floor = epilogue.floor();
        tile.ceiling = epilogue.ceiling();
        tile.out_stride = stride;
        Panel panel;
        panel.block = weights.taps * tile.layer_tap;
        if (span.in_place) {
            tile.weight_row = kBlock;
            tile.weight_tap = tile.layer_tap;
        } else {
            panel.columns = outputs.ids + span.first;
            panel.count = span.count;
            panel.weights = weights.packed;
            panel.row = divide_up(span.count, set.lanes) * set.lanes;
            panel.packed = scratch.panel.reserve(kPackedInputs * kBlock);
            set.plan(panel);
            tile.weight_row = panel.row;
            tile.weight_tap = inputs.count * panel.row;
        }
        const Parts parts = parts_of(span);
        tile.taps = parts.taps;
        const SpanLines own = parts.count > 1 ? lines_of(span) : SpanLines{}, next = lines_behind(number);
        for (std::size_t i = 0; i < parts.count; ++i) {
            const std::size_t tap = i / parts.of_tap, part = i % parts.of_tap;
            tile.begin = part * inputs.count / parts.of_tap;
            tile.depth = (part + 1) * inputs.count / parts.of_tap - tile.begin;
            tile.index = inputs.ids ? inputs.ids + tile.begin : nullptr;
            tile.first = i == 0;
            tile.last = i + 1 == parts.count;
            const Ahead ahead = i + 1 < parts.count ? rows_of(parts, i + 1, own) : rows_behind(number, next);
            run_part(span, ahead, cold, folded, panel, tile, tap);
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
                    const SpanLines own = lines_of(span);
                    fetch({own, nullptr, kColdRows, weights.taps * inputs.count}, 0, 1, tile);
                    set.tile(tile, rows, vectors);
                } else {
                    fetch(ahead, at / width * tiles + i, divide_up(span.count, width) * tiles, tile);
                    if (pack) set.packing_tile(tile, panel, first_tap, rows, vectors);
                    else set.tile(tile, rows, vectors);
                }
                pack = false;
                if (finishes)
                    set.finish(finishing(tile.sums, folded, at, position, span.first + at, tile.columns), rows);
            }
        }
    }

    // Makes a tile fetch its share of weights that are read later.
    static void fetch(const Ahead &ahead, std::size_t share, std::size_t shares, Tile &tile) {
        const std::size_t begin = share * ahead.count / shares;
        tile.ahead_rows = (share + 1) * ahead.count / shares - begin;
        tile.ahead_lines = ahead.lines.at;
        tile.ahead_count = ahead.lines.count;
        tile.ahead_index = ahead.ids ? ahead.ids + begin : nullptr;
        tile.ahead_first = ahead.first + begin;
    }

    static SpanLines whole_block(const float *weights) {
        SpanLines lines;
        for (; lines.count < kBlock / kLine; ++lines.count) lines.at[lines.count] = weights + lines.count * kLine;
        return lines;
    }

    // None, where there are too many.
    SpanLines lines_of(const Span &span) const {
        if (span.in_place) return whole_block(block(span.first));
        SpanLines lines;
        std::size_t latest = SIZE_MAX;
        for (std::size_t j = span.first; j < span.first + span.count; ++j) {
            const std::size_t column = output(j);
            if (column / kLine == latest) continue;
            if (lines.count == kMostLines) return {};
            latest = column / kLine;
            lines.at[lines.count++] = block(j) + column % kBlock / kLine * kLine;
        }
        return lines;
    }

    // The rows of a part.
    Ahead rows_of(const Parts &parts, std::size_t i, const SpanLines &lines) const {
        const std::size_t tap = i / parts.of_tap, part = i % parts.of_tap, begin = part * inputs.count / parts.of_tap;
        const std::size_t count = (part + 1) * inputs.count / parts.of_tap - begin;
        const std::int32_t *ids = rows_of_block();
        return {lines, ids ? ids + tap * inputs.count + begin : nullptr, tap * weights.inputs + begin, count * parts.taps};
    }

    // What is fetched while the last part of a span is multiplied: the next one's weights, or behind the last block the
    // layer that was packed after this one, which in a model is the one that is called next.
    SpanLines lines_behind(std::size_t number) const {
        const std::vector<Span> &spans = scratch.spans;
        if (number + 1 < spans.size()) return lines_of(spans[number + 1]);
        const bool last = output(outputs.count - 1) + 1 == weights.outputs;
        if (!last || inputs.ids || !spans[number].in_place) return {};
        return whole_block(block(spans[number].first) + weights.taps * weights.inputs * kBlock);
    }
    Ahead rows_behind(std::size_t number, const SpanLines &lines) const {
        const std::vector<Span> &spans = scratch.spans;
        return rows_of(parts_of(spans[std::min(number + 1, spans.size() - 1)]), 0, lines);
    }

    // The rows of a block that belong to active inputs, of all taps; null: all.
    const std::int32_t *rows_of_block() const {
        if (!inputs.ids || weights.taps == 1) return inputs.ids;
        if (scratch.rows_of_block.empty()) {
            for (std::size_t tap = 0; tap < weights.taps; ++tap) {
                for (std::size_t k = 0; k < inputs.count; ++k)
                    scratch.rows_of_block.push_back(inputs.ids[k] + static_cast<std::int32_t>(tap * weights.inputs));
            }
        }
        return scratch.rows_of_block.data();
    }

    void run_spans() const {
        scratch.rows_of_block.clear();
        find_spans(set.fetches_near || !outputs.ids || !inputs.ids || positions <= kPositionsInPlace);
        const std::size_t spans = scratch.spans.size();
        for (std::size_t i = 0; i < spans; ++i) run_span(i, i == 0 && scratch.spans[i].in_place && !inputs.ids);
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
