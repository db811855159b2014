#include "split_product.h"

#include "split.h"

namespace sluice {
namespace {

// With fewer rows splitting the weights takes longer than the tile unit saves.
constexpr std::size_t kSplitPositions = 72;

// Inputs that are multiplied at a time: their parts, of all positions and of two panels of weights, stay in the second
// cache.
constexpr std::size_t kSplitInputs = 384;

struct SplitProduct : Product {
    std::size_t parts, steps;    // of a tap, and of the largest of them
    std::size_t chunks, panels;  // of all taps, and panels of all of them

    explicit SplitProduct(const Product &product) : Product(product) {
        find_spans(true);
        parts = divide_up(inputs.count, kSplitInputs);
        steps = divide_up(divide_up(inputs.count, parts), kStepInputs);
        chunks = weights.taps * parts;
        panels = chunks * scratch.spans.size();
    }

    // Some inputs of one tap.
    struct Chunk {
        std::size_t tap, begin, depth;
        std::size_t steps() const { return divide_up(depth, kStepInputs); }
    };
    Chunk chunk(std::size_t i) const {
        const std::size_t part = i % parts, begin = part * inputs.count / parts;
        return {i / parts, begin, (part + 1) * inputs.count / parts - begin};
    }

    const Span &span(std::size_t panel) const { return scratch.spans[panel % scratch.spans.size()]; }

    // Where a panel's weights begin, for fetching them: the row of its first input.
    const float *first_row(std::size_t panel) const {
        const Chunk own = chunk(panel / scratch.spans.size());
        const auto id = inputs.ids ? static_cast<std::size_t>(inputs.ids[own.begin]) : own.begin;
        return block(span(panel).first) + (own.tap * weights.inputs + id) * kBlock;
    }

    // A panel of weights whose parts are kept: a whole block, of all inputs. Null: they are not.
    const Line *ready(std::size_t i) const {
        if (!weights.split || !span(i).in_place || inputs.count != weights.inputs) return nullptr;
        return static_cast<const Line *>(weights.split) +
               (output(span(i).first) / kBlock * parts + i / scratch.spans.size()) * split_lines(steps);
    }

    SplitPanel panel(std::size_t i, Panel &picked) const {
        const Chunk own = chunk(i / scratch.spans.size());
        SplitPanel panel;
        panel.ready = ready(i);
        panel.tap = own.tap * weights.inputs * kBlock;
        panel.index = inputs.ids ? inputs.ids + own.begin : nullptr;
        panel.begin = own.begin;
        panel.depth = own.depth;
        panel.strips = divide_up(span(i).count, kColumns);
        if (span(i).in_place) {
            panel.weights = block(span(i).first);
        } else {
            picked.columns = outputs.ids + span(i).first;
            picked.count = span(i).count;
            picked.weights = weights.packed;
            picked.block = weights.taps * weights.inputs * kBlock;
            set.plan(picked);
            panel.picks = picked.picks;
        }
        // As far from its own first row as the rows of this one are from theirs.
        if (i + 1 < panels) panel.ahead = block(span(i).first) + (first_row(i + 1) - first_row(i));
        return panel;
    }

    bool split_activations(const Chunk &own, std::size_t tile_rows, std::uint8_t *to) const {
        const std::size_t tile_bytes = own.steps() * kParts * kTileLines * sizeof(Line);
        bool finite = true;
        for (std::size_t first = 0; first < positions; first += tile_rows, to += tile_bytes) {
            for (std::size_t row = 0; row < std::min(tile_rows, positions - first); ++row) {
                const float *x = activations[own.tap * positions + first + row] + own.begin;
                finite &= set.split->split_row(x, own.depth, to + row * sizeof(Line));
            }
        }
        return finite;
    }

    bool run() const {
        const std::size_t tiles = divide_up(positions, kTileLines), tile_rows = divide_up(positions, tiles);
        const std::size_t line_floats = sizeof(Line) / sizeof(float), slot = tiles * tile_rows * kBlock;
        auto *split_x = reinterpret_cast<std::uint8_t *>(
            scratch.split_activations.reserve(tiles * steps * kParts * kTileLines * line_floats));
        Line *split_w[2];
        for (std::size_t i = 0; i < 2; ++i)
            split_w[i] = reinterpret_cast<Line *>(scratch.split_weights[i].reserve(split_lines(steps) * line_floats));
        const std::size_t spans = scratch.spans.size();
        float *sums = scratch.sums.reserve((chunks > 1 ? spans : 2) * slot);
        Folded folded[2];
        Panel picked[2];
        SplitFinish waiting;
        waiting.finish = set.finish;
        set.split->enter(tile_rows);
        for (std::size_t i = 0; i < panels; ++i) {
            const Chunk own = chunk(i / spans);
            if (i % spans == 0 && !split_activations(own, tile_rows, split_x)) {
                set.split->leave();
                return false;
            }
            const Line *kept = ready(i);
            if (i == 0 && !kept) set.split->split_panel(panel(0, picked[0]), split_w[0]);
            float *own_sums = sums + (chunks > 1 ? i % spans : i % 2) * slot;
            SplitJob job{split_x, own.steps(), tiles, tile_rows, kept ? kept : split_w[i % 2], divide_up(span(i).count, kColumns),
                         own_sums, i < spans, {}, split_w[(i + 1) % 2], &waiting};
            if (i + 1 < panels) {
                job.next = panel(i + 1, picked[(i + 1) % 2]);
            } else if (kept) {  // behind the last lie the parts of what was packed next, which a model calls next
                job.next.ready = kept + split_lines(steps);
                job.next.depth = own.depth;
                job.next.strips = kBlock / kColumns;
            }
            set.split->multiply(job);
            if (i + spans < panels) continue;
            folded[i % 2] = fold(span(i).first, span(i).count);
            waiting.rows = finishing(own_sums, folded[i % 2], 0, 0, span(i).first, span(i).count);
            waiting.left = positions;
        }
        set.split->leave();
        set.finish(waiting.rows, waiting.left);
        return true;
    }
};

}  // namespace

std::size_t split_bytes(std::size_t outputs, std::size_t inputs) {
    const std::size_t parts = divide_up(inputs, kSplitInputs), steps = divide_up(divide_up(inputs, parts), kStepInputs);
    return divide_up(outputs, kBlock) * parts * split_lines(steps) * sizeof(Line);
}

void split_weights(const SplitSet &set, const Weights &weights, void *to) {
    const std::size_t parts = divide_up(weights.inputs, kSplitInputs), outputs = weights.outputs,
                      lines = split_lines(divide_up(divide_up(weights.inputs, parts), kStepInputs));
    auto *line = static_cast<Line *>(to);
    for (std::size_t first = 0; first < outputs; first += kBlock) {
        for (std::size_t part = 0; part < parts; ++part, line += lines) {
            SplitPanel panel;
            panel.weights = weights.packed + first * weights.inputs;
            panel.begin = part * weights.inputs / parts;
            panel.depth = (part + 1) * weights.inputs / parts - panel.begin;
            panel.strips = divide_up(std::min(kBlock, outputs - first), kColumns);
            set.split_panel(panel, line);
        }
    }
}

bool multiply_split(const Product &product) {
    // A convolution would split every pixel once for each tap that reads it, which takes what the tile unit saves.
    if (product.weights.taps > 1) return false;
    if (product.positions < kSplitPositions || product.inputs.count == 0) return false;
    return SplitProduct(product).run();
}

}  // namespace sluice
