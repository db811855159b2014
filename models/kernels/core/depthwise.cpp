#include "depthwise.h"

#include <algorithm>

#include "memory.h"

namespace sluice {
namespace {

struct Buffers {
    FloatBuffer padded;
    FloatBuffer folded;  // [kernel · kernel + 3][active]
};

Buffers &buffers() {
    thread_local Buffers kept;
    return kept;
}

const float *with_border(FloatBuffer &buffer, const DepthwiseShape &shape, const float *x, std::size_t channels) {
    if (shape.before + shape.after == 0) return x;
    const std::size_t row = shape.width * channels, left = shape.before * channels, right = shape.after * channels;
    const std::size_t pitch = left + row + right;
    float *padded = buffer.reserve((shape.height + shape.before + shape.after) * pitch);
    float *to = std::fill_n(padded, shape.before * pitch, 0.0f);
    for (std::size_t y = 0; y < shape.height; ++y) {
        to = std::fill_n(to, left, 0.0f);
        to = std::copy_n(x + y * row, row, to);
        to = std::fill_n(to, right, 0.0f);
    }
    std::fill_n(to, shape.after * pitch, 0.0f);
    return padded;
}

}  // namespace

void convolve_depthwise(const InstructionSet &set, const float *weights, std::size_t channels,
                        const DepthwiseShape &shape, const float *x, Channels active, const Epilogue &epilogue,
                        float *out) {
    const std::size_t n = active.count, taps = shape.kernel * shape.kernel;
    if (n == 0) return;
    Buffers &kept = buffers();
    float *folded = kept.folded.reserve((taps + 3) * n);
    const auto gather = [&](const float *from, float otherwise, float *to) {
        for (std::size_t j = 0; j < n; ++j) to[j] = from ? from[active.ids ? active.ids[j] : j] : otherwise;
    };
    for (std::size_t tap = 0; tap < taps; ++tap) gather(weights + tap * channels, 0, folded + tap * n);
    float *scale = folded + taps * n, *shift = scale + n, *saliency = shift + n;
    gather(epilogue.scale, 1, scale);
    gather(epilogue.shift, 0, shift);
    for (std::size_t j = 0; j < n; ++j) saliency[j] = epilogue.saliency ? epilogue.saliency[j] : 1.0f;
    set.depthwise({with_border(kept.padded, shape, x, n), shape.width + shape.before + shape.after, n, shape.kernel,
                   shape.stride, folded, scale, shift, saliency, epilogue.activation, shape.out_height(),
                   shape.out_width(), out});
}

}  // namespace sluice
