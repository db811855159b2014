// Depthwise convolution: a vector of channels at a time, with all its weights in registers where there are enough.
#pragma once

#include "activations.h"
#include "instruction_set.h"
#include "vector.h"

namespace sluice {
namespace {

// A row of output positions of the channels from c on, which `load_some` reads and `store_some` writes.
template <std::size_t Kernel, typename Act, typename Load, typename Store>
void depthwise_row(const Depthwise &d, std::size_t row, std::size_t c, Act act, Load load_some, Store store_some) {
    Vector weights[Kernel * Kernel];
    for (std::size_t tap = 0; tap < Kernel * Kernel; ++tap) weights[tap] = load_some(d.weights + tap * d.channels + c);
    const Vector scale = load_some(d.scale + c), shift = load_some(d.shift + c), saliency = load_some(d.saliency + c);
    const std::size_t pitch = d.columns * d.channels;
    const float *x = d.x + row * d.stride * pitch + c;
    float *out = d.out + row * d.out_width * d.channels + c;
    for (std::size_t column = 0; column < d.out_width; ++column) {
        Vector sum = {};
#pragma GCC unroll 5
        for (std::size_t i = 0; i < Kernel; ++i) {
#pragma GCC unroll 5
            for (std::size_t j = 0; j < Kernel; ++j)
                sum += load_some(x + i * pitch + j * d.channels) * weights[i * Kernel + j];
        }
        store_some(out, act(sum * scale + shift) * saliency);
        x += d.stride * d.channels;
        out += d.channels;
    }
}

// Positions of the input that a vector of channels runs over before the next vector does: 24 KiB, so that the rows that
// two rows of outputs share are still in the nearest cache.
constexpr std::size_t kBandPositions = 384;

template <std::size_t Kernel, typename Act>
void depthwise_rows(const Depthwise &d, Act act) {
    const std::size_t rows = kBandPositions / d.columns, few = Kernel + d.stride;
    const std::size_t band = rows > few ? (rows - Kernel) / d.stride + 1 : 1;
    for (std::size_t begin = 0; begin < d.out_height; begin += band) {
        const std::size_t end = begin + band < d.out_height ? begin + band : d.out_height;
        if (d.channels < kLanes) {
            for (std::size_t row = begin; row < end; ++row) {
                depthwise_row<Kernel>(
                    d, row, 0, act, [&](const float *at) { return load_first(at, d.channels); },
                    [&](float *at, Vector value) { store_first(at, value, d.channels); });
            }
            continue;
        }
        for (std::size_t c = 0; c < d.channels; c += kLanes) {
            // The last few once more, with those before them.
            const std::size_t first = c + kLanes <= d.channels ? c : d.channels - kLanes;
            for (std::size_t row = begin; row < end; ++row) depthwise_row<Kernel>(d, row, first, act, load, store);
        }
    }
}

template <typename Act>
void depthwise_with(const Depthwise &d, Act act) {
    if (d.kernel == 3) {
        depthwise_rows<3>(d, act);
    } else {
        depthwise_rows<5>(d, act);
    }
}

void depthwise(const Depthwise &d) {
    with_activation(d.activation, [&](auto act) { depthwise_with(d, act); });
}

}  // namespace
}  // namespace sluice
