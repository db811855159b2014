#include "layers.h"

#include <algorithm>

#include "shared_work.h"
#include "strassen.h"

namespace sluice {
namespace {

Scratch &scratch() {
    thread_local Scratch kept;
    return kept;
}

// x with a border of zeros, [height + 2 · padding][width + 2 · padding][channels].
const float *with_border(FloatBuffer &buffer, const Convolution &shape, const float *x, std::size_t channels) {
    if (shape.padding == 0) return x;
    const std::size_t row = shape.width * channels, side = shape.padding * channels, pitch = row + 2 * side;
    float *padded = buffer.reserve((shape.height + 2 * shape.padding) * pitch), *to = padded;
    to = std::fill_n(to, shape.padding * pitch + side, 0.0f);
    for (std::size_t y = 0; y < shape.height; ++y) {
        to = std::copy_n(x + y * row, row, to);
        to = std::fill_n(to, y + 1 < shape.height ? 2 * side : side + shape.padding * pitch, 0.0f);
    }
    return padded;
}

// [kernel][positions] pointers to the row of taps that each output position reads, `kernel` neighbouring pixels.
const float *const *indirection(std::vector<const float *> &pointers, const Convolution &shape, const float *padded,
                                std::size_t channels) {
    const std::size_t out_height = shape.out_height(), out_width = shape.out_width();
    const std::size_t pitch = (shape.width + 2 * shape.padding) * channels;
    pointers.resize(shape.kernel * out_height * out_width);
    const float **next = pointers.data();
    for (std::size_t dy = 0; dy < shape.kernel; ++dy) {
        for (std::size_t i = 0; i < out_height; ++i) {
            const float *row = padded + (i * shape.stride + dy) * pitch;
            for (std::size_t j = 0; j < out_width; ++j) *next++ = row + j * shape.stride * channels;
        }
    }
    return pointers.data();
}

// The active inputs of a row of taps, whose weights lie one after another, as one list.
Channels row_of_taps(std::vector<std::int32_t> &index, Channels inputs, std::size_t taps, std::size_t channels) {
    if (!inputs.ids || taps == 1) return {inputs.ids, inputs.count * taps};
    index.resize(taps * inputs.count);
    std::int32_t *next = index.data();
    for (std::size_t tap = 0; tap < taps; ++tap) {
        for (std::size_t k = 0; k < inputs.count; ++k)
            *next++ = inputs.ids[k] + static_cast<std::int32_t>(tap * channels);
    }
    return {index.data(), index.size()};
}

}  // namespace

void convolve(const InstructionSet &set, const Weights &weights, const Convolution &shape, const float *x,
              Channels inputs, Channels outputs, const Epilogue &epilogue, float *out, Threads *threads) {
    Scratch &kept = scratch();
    const float *padded = with_border(kept.padded, shape, x, inputs.count);
    const float *const *activations = indirection(kept.activations, shape, padded, inputs.count);
    const Weights rows{weights.packed, weights.outputs, weights.inputs * shape.kernel, shape.kernel};
    const Channels taps = row_of_taps(kept.index, inputs, shape.kernel, weights.inputs);
    share_outputs(threads, outputs, epilogue, [&](Channels part, const Epilogue &own, std::size_t first) {
        multiply(set, rows, activations, shape.out_height() * shape.out_width(), taps, part, own, scratch(), out + first,
                 outputs.count);
    });
}

void multiply_matrix(const InstructionSet &set, const Weights &weights, const InputRows &x, Channels inputs, Channels outputs,
                     const Epilogue &epilogue, float *out, Threads *threads) {
    const bool all = !inputs.ids && !outputs.ids && inputs.count == weights.inputs && outputs.count == weights.outputs;
    const std::size_t done = all && weights.halves ? multiply_by_halves(set, weights, x, epilogue, out, threads) : 0;
    if (done == outputs.count) return;
    std::vector<const float *> &activations = scratch().activations;
    activations.resize(x.count);
    for (std::size_t row = 0; row < x.count; ++row) activations[row] = x.row(row);
    const Channels rest = outputs.part(done, outputs.count);
    share_outputs(threads, rest, epilogue.from(done), [&](Channels part, const Epilogue &own, std::size_t first) {
        multiply(set, weights, activations.data(), x.count, inputs, part, own, scratch(), out + done + first,
                 outputs.count);
    });
}

}  // namespace sluice
