#include "reduced.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "reduced_product.h"
#include "shared_work.h"
#include "weight_memory.h"

namespace sluice {

std::uint16_t nearest_bf16(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value) return static_cast<std::uint16_t>(bits >> 16 | 0x40);  // it stays no number
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

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
                    const std::uint16_t number = nearest_bf16(*weight);
                    std::memcpy(to, &number, sizeof number);
                }
            }
        }
    }
    return reduced;
}

namespace {

ReducedScratch &reduced_scratch() {
    thread_local ReducedScratch kept;
    return kept;
}

Plan planned(const ReducedWeights &weights, const Inputs &active, Channels outputs, const Epilogue &epilogue,
             std::size_t positions) {
    return ReducedProduct{weights, outputs, epilogue, reduced_scratch()}.plan(active, divide_up(positions, kTileLines));
}

void multiply_part(const ReducedWeights &weights, const InputRows &x, const Inputs &active, Plan plan, Channels outputs,
                   const Epilogue &epilogue, float *out, std::size_t stride) {
    ReducedScratch &scratch = reduced_scratch();
    ReducedProduct product{weights, outputs, epilogue, scratch};
    active.lay_out(plan.inputs, scratch);
    product.find_strips(plan);
    const std::size_t most = scratch.part.empty() ? kRowsTogether : x.count;  // what is packed is so once
    for (std::size_t first = 0; first < x.count; first += most) {
        product.set_rows(std::min(most, x.count - first));
        product.round_rows(x.part(first, most), active.count());
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
void multiply_reduced(const ReducedWeights &weights, const InputRows &x, Channels inputs, Channels outputs,
                      const Epilogue &epilogue, float *out, Threads *threads) {
    if (x.count == 0 || outputs.count == 0) return;
    const Inputs active(weights, inputs);
    const Plan plan = planned(weights, active, outputs, epilogue, x.count);
    share_outputs(threads, outputs, epilogue, [&](Channels part, const Epilogue &own, std::size_t first) {
        multiply_part(weights, x, active, plan, part, own, out + first, outputs.count);
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
