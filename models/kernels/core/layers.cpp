#include "layers.h"

#include <algorithm>
#include <cmath>

namespace sluice {
namespace {

// With so few inputs a tap's inner loop is all overhead, and copying the taps side by side is cheaper.
constexpr std::size_t kFewInputs = 4;

struct Scratch {
    Buffer panel, zeros, patches;
    std::unique_ptr<const float *[]> pointers;
    std::size_t capacity = 0;

    const float **reserve_pointers(std::size_t count) {
        if (count > capacity) {
            pointers.reset(new const float *[count]);
            capacity = count;
        }
        return pointers.get();
    }
};

// One to a thread, so that calls neither allocate nor share anything.
Scratch &scratch() {
    thread_local Scratch kept;
    return kept;
}

// [taps][positions] pointers to the input rows that each output position reads.
const float *const *indirection(Scratch &scratch, const Convolution &shape, const float *x, std::size_t channels) {
    const std::size_t out_height = shape.out_height(), out_width = shape.out_width();
    const float *zeros = scratch.zeros.reserve(std::max(channels, std::size_t{1}));
    const float **pointers = scratch.reserve_pointers(shape.kernel * shape.kernel * out_height * out_width);
    const float **next = pointers;
    for (std::size_t dy = 0; dy < shape.kernel; ++dy) {
        for (std::size_t dx = 0; dx < shape.kernel; ++dx) {
            for (std::size_t i = 0; i < out_height; ++i) {
                // Above and to the left of the input these wrap around to huge numbers, which are beyond it as well.
                const std::size_t y = i * shape.stride + dy - shape.padding;
                for (std::size_t j = 0; j < out_width; ++j) {
                    const std::size_t column = j * shape.stride + dx - shape.padding;
                    *next++ = y < shape.height && column < shape.width ? x + (y * shape.width + column) * channels : zeros;
                }
            }
        }
    }
    return pointers;
}

const float *const *consecutive(Scratch &scratch, const float *x, std::size_t rows, std::size_t channels) {
    const float **pointers = scratch.reserve_pointers(rows);
    for (std::size_t row = 0; row < rows; ++row) pointers[row] = x + row * channels;
    return pointers;
}

// [positions][taps][channels], copied.
const float *gather_patches(Scratch &scratch, const float *const *pointers, std::size_t positions, std::size_t taps, std::size_t channels) {
    float *patches = scratch.patches.reserve(positions * taps * channels), *next = patches;
    for (std::size_t position = 0; position < positions; ++position) {
        for (std::size_t tap = 0; tap < taps; ++tap) {
            const float *from = pointers[tap * positions + position];
            for (std::size_t c = 0; c < channels; ++c) *next++ = from[c];
        }
    }
    return patches;
}

}  // namespace

void convolve(const InstructionSet &set, const Weights &weights, const Convolution &shape, const float *x, Channels inputs, Channels outputs,
              const Epilogue &epilogue, float *out) {
    Scratch &kept = scratch();
    const std::size_t positions = shape.out_height() * shape.out_width();
    const float *const *pointers = indirection(kept, shape, x, inputs.count);
    if (weights.taps > 1 && !inputs.ids && inputs.count <= kFewInputs) {
        // [tap][input] is one list of inputs, in the weights and in the patches alike.
        const std::size_t depth = weights.taps * inputs.count;
        const float *patches = gather_patches(kept, pointers, positions, weights.taps, inputs.count);
        multiply(set, {weights.packed, weights.outputs, depth, 1}, consecutive(kept, patches, positions, depth), positions, {nullptr, depth},
                 outputs, epilogue, kept.panel, out);
        return;
    }
    multiply(set, weights, pointers, positions, inputs, outputs, epilogue, kept.panel, out);
}

void multiply_matrix(const InstructionSet &set, const Weights &weights, const float *x, std::size_t rows, Channels inputs, Channels outputs,
                     const Epilogue &epilogue, float *out) {
    Scratch &kept = scratch();
    multiply(set, weights, consecutive(kept, x, rows, inputs.count), rows, inputs, outputs, epilogue, kept.panel, out);
}

std::size_t select_channels(const InstructionSet &set, const float *features, std::size_t count, const float *projection, const float *bias,
                            std::size_t channels, float threshold, std::int32_t *active, float *multipliers) {
    double sum = 0;
    float largest = -INFINITY;
    std::size_t strongest = 0, selected = 0;
    for (std::size_t j = 0; j < channels; ++j) {
        const float a = set.dot(projection + j * count, features, count) + bias[j];
        if (a > 0) sum += a;
        if (a > largest) {
            largest = a;
            strongest = j;
        }
        if (a > threshold && a > 0) {
            active[selected] = static_cast<std::int32_t>(j);
            multipliers[selected++] = a;
        }
    }
    if (selected == 0) {
        active[selected] = static_cast<std::int32_t>(strongest);
        multipliers[selected++] = std::max(largest, 0.0f);
    }
    if (sum > 0) {
        const float mean = static_cast<float>(sum / static_cast<double>(channels));
        for (std::size_t i = 0; i < selected; ++i) multipliers[i] /= mean;
    } else {
        multipliers[0] = 1.0f;
    }
    return selected;
}

}  // namespace sluice
