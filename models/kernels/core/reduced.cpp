#include "reduced.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "shared_work.h"
#include "weight_memory.h"

namespace sluice {
namespace {

constexpr std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// What packing a tile of weights costs, in tiles that are multiplied.
constexpr std::size_t kPackingCost = 4;

// Strips that are packed at a time: as many as one pass over the positions reads.
constexpr std::size_t kPackedStrips = 2;

// Rows that are rounded and multiplied before others: so many stay in the second cache while strip after strip reads them.
constexpr std::size_t kRowsTogether = 16 * kTileLines;

// One to a thread, so that calls share nothing and, once warm, allocate nothing.
struct ReducedScratch {
    std::vector<Line> activations, panel;
    std::vector<float> row_scales;
    std::vector<Slots> slots;
    std::vector<std::int32_t> lines;
    std::vector<std::size_t> activation_steps, weight_steps;
    std::vector<Strip> whole;              // strips that are read where they lie
    std::vector<std::size_t> part;         // ids of those that are packed
    std::vector<std::int32_t> every;       // 0, 1, 2, …

    template <typename Item>
    static Item *reserve(std::vector<Item> &items, std::size_t count) {
        if (items.size() < count) items.resize(count);
        return items.data();
    }
};

ReducedScratch &reduced_scratch() {
    thread_local ReducedScratch kept;
    return kept;
}

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

// What is packed, decided for all outputs of a call over so many tiles of positions; see kPackingCost. Threads that share
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
                          part_packed = divide_up(c.part_columns, kColumns) * (tiles + kPackingCost);
        const std::size_t read = in_place * ((c.strips - c.part) * tiles + std::min(part_in_place, part_packed));
        const std::size_t all_packed = packed * divide_up(outputs.count, kColumns) * (tiles + kPackingCost);
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

    // `out` and `residual` are of the first of the job's positions; rows of both lie `stride` apart.
    void run(float *out, const float *residual, std::size_t stride) {
        const std::size_t tap_steps = scratch.slots.size();
        job.activation_steps = scratch.activation_steps.data();
        job.row_scales = weights.datatype == Datatype::int8 ? scratch.row_scales.data() : nullptr;
        job.activation = epilogue.activation;
        job.residual = residual;
        job.out = out;
        job.out_stride = stride;
        weights.set->enter(job.tile_rows);
        if (!scratch.whole.empty()) {
            set_steps(tap_steps, false);
            job.weight_steps = scratch.weight_steps.data();
            job.strips = scratch.whole.data();
            job.strip_count = scratch.whole.size();
            weights.set->multiply(job);
        }
        if (!scratch.part.empty()) run_packed(tap_steps);
        weights.set->leave();
    }

    void run_packed(std::size_t tap_steps) {
        const std::size_t tap_lines = tap_steps * kTileLines, lines = weights.taps * tap_lines;
        Line *panel = ReducedScratch::reserve(scratch.panel, kPackedStrips * lines);
        set_steps(tap_steps, true);
        job.weight_steps = scratch.weight_steps.data();
        Strip strips[kPackedStrips];
        for (std::size_t at = 0; at < scratch.part.size();) {
            for (job.strip_count = 0; job.strip_count < kPackedStrips && at < scratch.part.size(); ++job.strip_count) {
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

std::uint16_t to_bf16(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace

ReducedWeights reduce_weights(const float *weight, std::size_t outputs, std::size_t inputs, std::size_t taps,
                              Datatype datatype, const ReducedSet &set) {
    ReducedWeights reduced{datatype, &set, outputs, inputs, taps, 0, nullptr, {}};
    const std::size_t strips = divide_up(outputs, kColumns), strip_lines = taps * reduced.tap_lines();
    const std::size_t group = group_size(datatype), item = 4 / group;
    reduced.line_count = strips * strip_lines;
    const std::shared_ptr<void> memory = weight_memory(reduced.line_count * sizeof(Line));
    reduced.lines = {memory, static_cast<Line *>(memory.get())};
    if (datatype == Datatype::int8) reduced.scales.resize(outputs);
    for (std::size_t o = 0; o < outputs; ++o) {
        float inverse = 0;
        if (datatype == Datatype::int8) {
            float largest = 0;
            for (std::size_t i = 0; i < inputs * taps; ++i) largest = std::max(largest, std::abs(weight[i]));
            inverse = 127.0f / largest;
            const bool vanishes = !std::isfinite(inverse);  // zeros, or too small for a scale
            if (vanishes) inverse = 0;
            reduced.scales[o] = vanishes ? 0 : largest / 127.0f;
        }
        for (std::size_t i = 0; i < inputs; ++i) {
            for (std::size_t tap = 0; tap < taps; ++tap, ++weight) {
                Line &line = reduced.lines[o / kColumns * strip_lines + tap * reduced.tap_lines() + i / group];
                std::uint8_t *to = line.bytes + o % kColumns * 4 + i % group * item;
                if (datatype == Datatype::int8) {
                    const auto number = static_cast<std::int8_t>(std::nearbyint(*weight * inverse));
                    std::memcpy(to, &number, sizeof number);
                } else {
                    const std::uint16_t number = to_bf16(*weight);
                    std::memcpy(to, &number, sizeof number);
                }
            }
        }
    }
    return reduced;
}

namespace {

Plan planned(const ReducedWeights &weights, const Inputs &active, Channels outputs, const Epilogue &epilogue,
             std::size_t positions) {
    return ReducedProduct{weights, outputs, epilogue, reduced_scratch()}.plan(active, divide_up(positions, kTileLines));
}

void multiply_part(const ReducedWeights &weights, const float *x, std::size_t rows, const Inputs &active, Plan plan,
                   Channels outputs, const Epilogue &epilogue, float *out, std::size_t stride) {
    ReducedScratch &scratch = reduced_scratch();
    ReducedProduct product{weights, outputs, epilogue, scratch};
    Job &job = product.job;
    active.lay_out(plan.inputs, scratch);
    product.find_strips(plan);
    const std::size_t steps = scratch.slots.size(), tile_lines = steps * kTileLines;
    scratch.activation_steps.clear();
    for (std::size_t s = 0; s < steps; ++s) scratch.activation_steps.push_back(s * kTileLines * sizeof(Line));
    const std::size_t most = scratch.part.empty() ? kRowsTogether : rows;  // what is packed is so once
    job.position_bytes = sizeof(Line);
    for (std::size_t first = 0; first < rows; first += most) {
        const std::size_t count = std::min(most, rows - first);
        job.tiles = divide_up(count, kTileLines);
        job.tile_rows = divide_up(count, job.tiles);
        job.tile_bytes = tile_lines * sizeof(Line);
        job.positions = job.pitch = job.width = count;
        // Tile by tile, [tile][step][row]: rows at a power of two from each other would share few sets of the cache.
        auto *activations = reinterpret_cast<std::uint8_t *>(
            ReducedScratch::reserve(scratch.activations, job.tiles * std::max(tile_lines, std::size_t{1})));
        float *scales = ReducedScratch::reserve(scratch.row_scales, count);
        for (std::size_t row = 0; row < count; ++row) {
            const std::size_t line = row / job.tile_rows * tile_lines + row % job.tile_rows;
            scales[row] = weights.set->convert(x + (first + row) * active.count(), active.count(), scratch.slots.data(), steps,
                                               activations + line * sizeof(Line), kTileLines * sizeof(Line));
        }
        job.activations = activations;
        product.run(out + first * stride, epilogue.residual ? epilogue.residual + first * stride : nullptr, stride);
    }
}

// Rows of the image lie `pitch` pixels apart with zeros between them, which are the right border of one and the left
// border of the next. Positions of the result are numbered at the same pitch, so that a tile of them is evenly spaced in
// the image even where it spans rows; those that fall between rows are not stored.
std::size_t pitch_of(const Convolution &shape) {
    const std::size_t most = 2 * shape.padding + 1;
    return shape.width + std::max(shape.padding, most - std::min(shape.kernel, most));
}

std::size_t positions_of(const Convolution &shape) {
    return (shape.out_height() - 1) * pitch_of(shape) + shape.out_width();
}

void convolve_part(const ReducedWeights &weights, const Convolution &shape, const float *x, const Inputs &active,
                   Plan plan, Channels outputs, const Epilogue &epilogue, float *out, std::size_t stride) {
    ReducedScratch &scratch = reduced_scratch();
    ReducedProduct product{weights, outputs, epilogue, scratch};
    Job &job = product.job;
    const std::size_t pitch = pitch_of(shape);
    job.width = shape.out_width();
    job.pitch = pitch;
    job.positions = positions_of(shape);
    job.tiles = divide_up(job.positions, kTileLines);
    job.tile_rows = divide_up(job.positions, job.tiles);
    active.lay_out(plan.inputs, scratch);
    const std::size_t steps = scratch.slots.size();
    const std::size_t last = (job.tiles * job.tile_rows - 1) * shape.stride + (shape.kernel - 1) * (pitch + 1);
    const std::size_t rows = shape.height + 2 * shape.padding;
    const std::size_t pixels = std::max(last + 1, rows * pitch + shape.padding);
    Line *image = ReducedScratch::reserve(scratch.activations, pixels * std::max(steps, std::size_t{1}));
    std::fill_n(image, pixels * steps, Line{});
    for (std::size_t y = 0; y < shape.height; ++y) {
        for (std::size_t column = 0; column < shape.width; ++column) {
            const std::size_t pixel = (y + shape.padding) * pitch + shape.padding + column;
            weights.set->convert(x + (y * shape.width + column) * active.count(), active.count(), scratch.slots.data(),
                                 steps, image[pixel * steps].bytes, sizeof(Line));
        }
    }
    scratch.activation_steps.clear();
    for (std::size_t tap = 0; tap < weights.taps; ++tap) {
        const std::size_t pixel = tap / shape.kernel * pitch + tap % shape.kernel;
        for (std::size_t s = 0; s < steps; ++s) scratch.activation_steps.push_back((pixel * steps + s) * sizeof(Line));
    }
    job.activations = image->bytes;
    job.position_bytes = shape.stride * steps * sizeof(Line);
    job.tile_bytes = job.tile_rows * job.position_bytes;
    product.find_strips(plan);
    product.run(out, epilogue.residual, stride);
}

}  // namespace

// Each thread rounds the activations for itself: they are few beside the weights.
void multiply_reduced(const ReducedWeights &weights, const float *x, std::size_t rows, Channels inputs,
                      Channels outputs, const Epilogue &epilogue, float *out, Threads *threads) {
    if (rows == 0 || outputs.count == 0) return;
    const Inputs active(weights, inputs);
    const Plan plan = planned(weights, active, outputs, epilogue, rows);
    share_outputs(threads, outputs, epilogue, [&](Channels part, const Epilogue &own, std::size_t first) {
        multiply_part(weights, x, rows, active, plan, part, own, out + first, outputs.count);
    });
}

void convolve_reduced(const ReducedWeights &weights, const Convolution &shape, const float *x, Channels inputs,
                      Channels outputs, const Epilogue &epilogue, float *out, Threads *threads) {
    if (outputs.count == 0) return;
    const Inputs active(weights, inputs);
    const Plan plan = planned(weights, active, outputs, epilogue, positions_of(shape));
    share_outputs(threads, outputs, epilogue, [&](Channels part, const Epilogue &own, std::size_t first) {
        convolve_part(weights, shape, x, active, plan, part, own, out + first, outputs.count);
    });
}

}  // namespace sluice
