// Depthwise convolution over the active channels.
#pragma once

#include "product.h"

namespace sluice {

struct DepthwiseShape {
    std::size_t height, width;  // of the input
    std::size_t kernel, stride;
    std::size_t before, after;  // zeros above and on the left, below and on the right

    std::size_t out_height() const { return (height + before + after - kernel) / stride + 1; }
    std::size_t out_width() const { return (width + before + after - kernel) / stride + 1; }
};

// x is [height][width][active.count], out is [out height][out width][active.count]; `weights` is [kernel · kernel]
// [channels] of all channels. The epilogue has no residual.
void convolve_depthwise(const InstructionSet &set, const float *weights, std::size_t channels,
                        const DepthwiseShape &shape, const float *x, Channels active, const Epilogue &epilogue,
                        float *out);

}  // namespace sluice
