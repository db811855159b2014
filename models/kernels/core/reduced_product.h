// A product in bf16 or int8, in the steps that the calls of reduced.cpp and reduced_feed_forward.cpp are made of: which tiles
// take part, which strips are read in place or packed, and their multiplication.
#pragma once

#include <algorithm>

#include "reduced.h"

namespace sluice {

constexpr std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// Rows that are rounded and multiplied before others: so many stay in the second cache while strip after strip reads them.
constexpr std::size_t kRowsTogether = 16 * kTileLines;

// How many rows before its norm a row is fetched.
constexpr std::size_t kNormAhead = 4;

// A thread has its own, so that calls share nothing and, once warm, allocate nothing.
struct ReducedScratch {
    std::vector<Line> activations, panel;
    std::vector<float> row_scales, normed;
    std::vector<Slots> slots;
    std::vector<std::int32_t> lines;
    std::vector<std::size_t> activation_steps, weight_steps;
    std::vector<Strip> whole;       // strips that are read where they lie
    std::vector<std::size_t> part;  // ids of those that are packed

    template <typename Item>
    static Item *reserve(std::vector<Item> &items, std::size_t count) {
        if (items.size() < count) items.resize(count);
        return items.data();
    }
};

// The places of the active inputs in the tiles of one tap. In place, those tiles take part that have one. Packed, the lines
// with an active input are moved together, so that they fill fewer tiles.
class Inputs {
public:
    Inputs(const ReducedWeights &weights, Channels inputs) : weights_(weights), inputs_(inputs) {
        if (!inputs.ids) return;
        std::int32_t last_group = -1, last_tile = -1;
        for (std::size_t k = 0; k < inputs.count; ++k) {
            const auto group = inputs.ids[k] / static_cast<std::int32_t>(group_size(weights.datatype));
            const auto tile = group / static_cast<std::int32_t>(kTileLines);
            groups_ += group != last_group;
            tiles_ += tile != last_tile;
            last_group = group;
            last_tile = tile;
        }
    }

    std::size_t count() const { return inputs_.count; }
    std::size_t tiles_in_place() const { return inputs_.ids ? tiles_ : weights_.tap_lines() / kTileLines; }
    std::size_t tiles_packed() const { return inputs_.ids ? divide_up(groups_, kTileLines) : tiles_in_place(); }

    // Fills slots, one for each step of a tap, and lines: those of a tap that the steps consist of, −1 for none.
    void lay_out(bool packed, ReducedScratch &scratch) const {
        const std::size_t width = tile_inputs(weights_.datatype), group = group_size(weights_.datatype);
        scratch.slots.clear();
        scratch.lines.clear();
        if (!inputs_.ids) {
            for (std::size_t i = 0; i < inputs_.count; i += width) {
                const std::size_t count = std::min(width, inputs_.count - i);
                scratch.slots.push_back({count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1, i});
                for (std::size_t line = 0; line < kTileLines; ++line)
                    scratch.lines.push_back(static_cast<std::int32_t>(i / group + line));
            }
            return;
        }
        std::size_t last = SIZE_MAX, place = 0;  // the latest line, and its number among those of its tile
        for (std::size_t k = 0; k < inputs_.count; ++k) {
            const auto id = static_cast<std::size_t>(inputs_.ids[k]);
            const std::size_t line = id / group;
            if (line != last) {
                const bool opens = packed ? last == SIZE_MAX || place + 1 == kTileLines
                                          : last == SIZE_MAX || line / kTileLines != last / kTileLines;
                place = packed ? (opens ? 0 : place + 1) : line % kTileLines;
                if (opens) {
                    scratch.slots.push_back({0, k});
                    const std::size_t first = line / kTileLines * kTileLines;
                    for (std::size_t i = 0; i < kTileLines; ++i)
                        scratch.lines.push_back(packed ? static_cast<std::int32_t>(line)
                                                       : static_cast<std::int32_t>(first + i));
                }
                if (packed) scratch.lines[scratch.lines.size() - kTileLines + place] = static_cast<std::int32_t>(line);
                last = line;
            }
            scratch.slots.back().active |= std::uint64_t{1} << (place * group + id % group);
        }
    }

private:
    const ReducedWeights &weights_;
    Channels inputs_;
    std::size_t groups_ = 0, tiles_ = 0;
};

// What is packed, decided for all outputs of a call over so many tiles of positions; see ReducedSet::packing_cost. Threads that share
// the outputs follow one plan: where inputs are packed they are summed in another order.
struct Plan {
    bool inputs, outputs;
};

// One call, once the activations know their shape.
struct ReducedProduct {
    const ReducedWeights &weights;
    Channels outputs;
    const Epilogue &epilogue;
    ReducedScratch &scratch;
    Job job{};

    std::size_t output(std::size_t j) const { return outputs[j]; }

    // Calls visit(strip, first, count) for each strip with active outputs, first … first + count of the list.
    template <typename Visit>
    void each_strip(Visit visit) const {
        for (std::size_t first = 0; first < outputs.count;) {
            const std::size_t strip = output(first) / kColumns;
            std::size_t count = 1;
            if (outputs.ids) {
                while (first + count < outputs.count && output(first + count) / kColumns == strip) ++count;
            } else {
                count = std::min((strip + 1) * kColumns - output(first), outputs.count - first);
            }
            visit(strip, first, count);
            first += count;
        }
    }

    // The epilogue of column j of a strip, which is the result's column `position`.
    void fold(Strip &strip, std::size_t j, std::size_t position) const {
        const std::size_t o = output(position);
        strip.scale[j] = epilogue.scale ? epilogue.scale[o] : 1.0f;
        if (!weights.scales.empty()) strip.scale[j] *= weights.scales[o];
        strip.shift[j] = epilogue.shift ? epilogue.shift[o] : 0.0f;
        strip.saliency[j] = epilogue.saliency ? epilogue.saliency[position] : 1.0f;
    }

    Strip in_place(std::size_t index, std::size_t first, std::size_t count) const {
        Strip strip{};
        strip.weights = weights.strip(index);
        strip.column = first;
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t j = output(first + i) % kColumns;
            strip.active |= 1u << j;
            fold(strip, j, first + i);
        }
        return strip;
    }

    bool is_whole(std::size_t strip, std::size_t count) const {
        return count == std::min(kColumns, weights.outputs - strip * kColumns);
    }

    // How many strips are there, how many of them have inactive columns, and how many strips those would fill.
    struct Count {
        std::size_t strips = 0, part = 0, part_columns = 0;
    };
    Count count() const {
        Count c;
        each_strip([&](std::size_t strip, std::size_t, std::size_t n) {
            ++c.strips;
            if (!is_whole(strip, n)) {
                ++c.part;
                c.part_columns += n;
            }
        });
        return c;
    }

    Plan plan(const Inputs &inputs, std::size_t tiles) const {
        const Count c = count();
        const std::size_t in_place = inputs.tiles_in_place(), packed = inputs.tiles_packed();
        const std::size_t part_in_place = c.part * tiles,
                          part_packed = divide_up(c.part_columns, kColumns) * (tiles + weights.set->packing_cost);
        const std::size_t read = in_place * ((c.strips - c.part) * tiles + std::min(part_in_place, part_packed));
        const std::size_t all_packed = packed * divide_up(outputs.count, kColumns) * (tiles + weights.set->packing_cost);
        if (all_packed < read) return {true, true};
        return {false, part_packed < part_in_place};
    }

    // `steps` of weights of one tap, where they lie.
    void set_steps(std::size_t tap_steps, bool packed) {
        job.steps = weights.taps * tap_steps;
        scratch.weight_steps.clear();
        for (std::size_t tap = 0; tap < weights.taps; ++tap) {
            for (std::size_t s = 0; s < tap_steps; ++s) {
                const std::size_t line = packed ? s * kTileLines
                                                : static_cast<std::size_t>(scratch.lines[s * kTileLines]);
                scratch.weight_steps.push_back(tap * (packed ? tap_steps * kTileLines : weights.tap_lines()) + line);
            }
        }
    }

    void find_strips(const Plan &plan) {
        scratch.whole.clear();
        scratch.part.clear();
        each_strip([&](std::size_t strip, std::size_t first, std::size_t n) {
            if (plan.inputs || (plan.outputs && !is_whole(strip, n))) {
                for (std::size_t i = 0; i < n; ++i) scratch.part.push_back(first + i);
            } else {
                scratch.whole.push_back(in_place(strip, first, n));
            }
        });
    }

    // Of so many rows, once their inputs are laid out: tile by tile, [tile][step][row], since rows at a power of two from each
    // other would share few sets of the cache.
    void set_rows(std::size_t count) {
        const std::size_t tile_bytes = kTileLines * sizeof(Line);
        scratch.activation_steps.clear();
        for (std::size_t s = 0; s < scratch.slots.size(); ++s) scratch.activation_steps.push_back(s * tile_bytes);
        job.tiles = divide_up(count, kTileLines);
        job.tile_rows = divide_up(count, job.tiles);
        job.position_bytes = sizeof(Line);
        job.tile_bytes = scratch.slots.size() * tile_bytes;
        job.positions = job.pitch = job.width = count;
    }

    std::uint8_t *reserve_rows() {
        const std::size_t lines = std::max(scratch.slots.size() * kTileLines, std::size_t{1});
        return reinterpret_cast<std::uint8_t *>(ReducedScratch::reserve(scratch.activations, job.tiles * lines));
    }

    // The active inputs of the job's rows, which are the first of x.
    void round_rows(const InputRows &x, std::size_t inputs) {
        std::uint8_t *activations = reserve_rows();
        float *scales = ReducedScratch::reserve(scratch.row_scales, job.positions);
        float *normed = x.norm ? ReducedScratch::reserve(scratch.normed, inputs) : nullptr;
        for (std::size_t row = 0; row < job.positions; ++row) {
            const float *values = x.row(row);
            if (normed) {
                for (std::size_t k = 0; k < inputs; k += kLine) __builtin_prefetch(values + kNormAhead * x.stride + k);
                (*x.norm)(values, 1, inputs, normed);
                values = normed;
            }
            scales[row] = weights.set->convert(
                values, inputs, scratch.slots.data(), scratch.slots.size(),
                activations + row / job.tile_rows * job.tile_bytes + row % job.tile_rows * sizeof(Line),
                kTileLines * sizeof(Line));
        }
        job.activations = activations;
    }

    // `out` and `residual` are of the first of the job's positions; rows of both lie `stride` apart.
    void run(float *out, const float *residual, std::size_t stride) {
        const std::size_t tap_steps = scratch.slots.size();
        job.activation_steps = scratch.activation_steps.data();
        job.row_scales = weights.datatype == Datatype::int8 ? scratch.row_scales.data() : nullptr;
        job.activation = epilogue.activation;
        job.plain = !epilogue.scale && !epilogue.saliency && weights.scales.empty();
        job.residual = residual;
        job.out = out;
        job.out_stride = stride;
        weights.set->enter(job.tile_rows);
        if (!scratch.whole.empty()) {
            set_steps(tap_steps, false);
            job.weight_steps = scratch.weight_steps.data();
            job.strips = scratch.whole.data();
            job.strip_count = scratch.whole.size();
            job.strip_lines = weights.taps * weights.tap_lines();
            weights.set->multiply(job);
        }
        if (!scratch.part.empty()) run_packed(tap_steps);
        weights.set->leave();
    }

    void run_packed(std::size_t tap_steps) {
        const std::size_t tap_lines = tap_steps * kTileLines, lines = weights.taps * tap_lines;
        const std::size_t most = weights.set->packed_strips;
        Line *panel = ReducedScratch::reserve(scratch.panel, most * lines);
        set_steps(tap_steps, true);
        job.weight_steps = scratch.weight_steps.data();
        job.strip_lines = 0;
        Strip strips[kMostPackedStrips];
        for (std::size_t at = 0; at < scratch.part.size();) {
            for (job.strip_count = 0; job.strip_count < most && at < scratch.part.size(); ++job.strip_count) {
                // Its columns must be neighbours in the result.
                std::size_t n = 1;
                while (n < kColumns && at + n < scratch.part.size() && scratch.part[at + n] == scratch.part[at] + n) ++n;
                strips[job.strip_count] = pack(at, n, panel + job.strip_count * lines, tap_lines);
                at += n;
            }
            job.strips = strips;
            weights.set->multiply(job);
        }
    }

    // Columns part[at] … part[at + n] of the result.
    Strip pack(std::size_t at, std::size_t n, Line *to, std::size_t tap_lines) const {
        Strip strip{};
        strip.weights = to;
        strip.active = (1u << n) - 1;
        strip.column = scratch.part[at];
        Gather gather{};
        std::size_t last = SIZE_MAX;
        for (std::size_t j = 0; j < n; ++j) {
            const std::size_t position = scratch.part[at + j], o = output(position);
            fold(strip, j, position);
            if (o / kColumns != last) {
                last = o / kColumns;
                gather.strips[gather.count++] = weights.strip(last);
            }
            gather.masks[gather.count - 1] |= 1u << j;
            gather.lanes[j] = static_cast<std::int32_t>(o % kColumns);
        }
        for (std::size_t tap = 0; tap < weights.taps; ++tap) {
            weights.set->gather(gather, scratch.lines.data(), tap_lines, to + tap * tap_lines);
            for (std::size_t s = 0; s < gather.count; ++s) gather.strips[s] += weights.tap_lines();
        }
        return strip;
    }
};

}  // namespace sluice
