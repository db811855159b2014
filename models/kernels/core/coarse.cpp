#define LANES 4
#include "coarse.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "memory.h"
#include "reduced.h"
#include "vector.h"
#include "weight_memory.h"

namespace sluice {
namespace {

// How much larger than all of an input's weights its scale may become, where they make up for the errors of others.
constexpr float kRoom = 1.25f;

// Inputs whose errors are made up for together by all behind them.
constexpr std::size_t kAtATime = 32;

// So many scales are tried: the least that cuts no weight off by more than this share, and smaller ones, which are nearer
// to most weights.
constexpr int kTried = 3;
constexpr float kCutOff = 0.05f;

// The largest of bf16.
constexpr float kMostScale = 0x1.fep127f;

struct Rounded {
    IntVector codes[kCoarseOutputs / kLanes];  // of magnitudes
    float error;
};

Rounded round_to(const float *magnitudes, std::size_t count, float scale) {
    Rounded made;
    alignas(16) float errors[kCoarseOutputs];
    for (std::size_t v = 0; v < kCoarseOutputs / kLanes; ++v) {
        const Vector magnitude = load(magnitudes + v * kLanes);
        Vector missed = magnitude - kCoarseValues[0] * scale;
        IntVector code = {};
        for (std::size_t i = 0; i < 7; ++i) {
            const IntVector above = magnitude > (kCoarseValues[i] + kCoarseValues[i + 1]) / 2 * scale;
            const Vector step = broadcast((kCoarseValues[i + 1] - kCoarseValues[i]) * scale);
            code -= above;
            missed -= (Vector)(above & (IntVector)step);
        }
        made.codes[v] = code;
        store(errors + v * kLanes, missed * missed);
    }
    made.error = std::accumulate(errors, errors + count, 0.0f);
    return made;
}

// To the nearest number of bf16, which is written, of a finite value.
float put_bf16(float value, std::uint8_t *to) {
    const std::uint16_t upper = nearest_bf16(value);
    std::memcpy(to, &upper, sizeof upper);
    return from_bf16(to);
}

float step_of(const CoarseWeights &w, std::size_t input) { return from_bf16(w.steps() + 2 * input); }

std::uint8_t *output_scale(const CoarseWeights &w, std::size_t output) {
    return w.unit(output / kCoarseOutputs) + w.unit().output_scales() + 2 * (output % kCoarseOutputs);
}

std::uint8_t *input_scale(const CoarseWeights &w, std::size_t unit, std::size_t input) {
    return w.unit(unit) + w.unit().input_scales() + coarse_scale_byte(input);
}

// Where the bits of one weight are.
struct Place {
    std::uint8_t *byte;
    unsigned shift;
};

Place place_of(std::uint8_t *unit, std::size_t input, std::size_t output) {
    const unsigned shift = coarse_shift(input % 4, output / 16);
    return {unit + input / 4 * kCoarseLine + output % 16 * 4 + shift / 8, shift % 8};
}

// The weights of one input in one unit, `count` and zeros, which become what they are rounded to.
void pack_input(const CoarseWeights &w, std::size_t unit, std::size_t input, float *weights, std::size_t count) {
    float magnitudes[kCoarseOutputs], largest = 0;
    for (std::size_t j = 0; j < kCoarseOutputs; ++j) {
        magnitudes[j] = std::abs(weights[j]);
        largest = std::max(largest, magnitudes[j]);
    }
    const float step = step_of(w, input);
    Rounded best{};  // by a scale of 0, which is best where all are far smaller than those of other units
    best.error = std::inner_product(magnitudes, magnitudes + count, magnitudes, 0.0f);
    int chosen = 0, largest_code = 1;
    while (largest_code < 15 && kCoarseScales[largest_code] * step < (1 - kCutOff) * largest) ++largest_code;
    for (int code = largest_code; code > std::max(0, largest_code - kTried); --code) {
        const Rounded made = round_to(magnitudes, count, kCoarseScales[code] * step);
        if (!(made.error < best.error)) continue;
        best = made;
        chosen = code;
    }
    *input_scale(w, unit, input) |= static_cast<std::uint8_t>(chosen << coarse_scale_shift(input));
    const float scale = kCoarseScales[chosen] * step;
    for (std::size_t j = 0; j < kCoarseOutputs; ++j) {
        const Place place = place_of(w.unit(unit), input, j);
        const std::int32_t code = best.codes[j / kLanes][j % kLanes] + (weights[j] < 0 ? 8 : 0);
        *place.byte |= static_cast<std::uint8_t>(code << place.shift);
        weights[j] = j < count ? kCoarseValues[code] * scale : 0.0f;
    }
}

// weights[j] -= the errors of some inputs, as the factor's row of j says.
void make_up(float *weights, const float *errors, const float *factors, std::size_t some) {
    Vector sums[kCoarseOutputs / kLanes];
    for (std::size_t v = 0; v < kCoarseOutputs / kLanes; ++v) sums[v] = load(weights + v * kLanes);
    for (std::size_t i = 0; i < some; ++i) {
        const Vector factor = broadcast(factors[i]);
        for (std::size_t v = 0; v < kCoarseOutputs / kLanes; ++v)
            sums[v] -= factor * load(errors + i * kCoarseOutputs + v * kLanes);
    }
    for (std::size_t v = 0; v < kCoarseOutputs / kLanes; ++v) store(weights + v * kLanes, sums[v]);
}

// A unit whose inputs' weights, [inputs][kCoarseOutputs] in order, make up for the errors of those before them.
void pack_unit(const CoarseWeights &w, std::size_t unit, const MakingUp &making_up, float *weights, std::size_t count) {
    float errors[kAtATime * kCoarseOutputs];
    for (std::size_t first = 0; first < w.inputs; first += kAtATime) {
        const std::size_t last = std::min(first + kAtATime, w.inputs);
        for (std::size_t i = first; i < last; ++i) {
            const float *factors = making_up.factor + i * w.inputs;
            float *own = weights + i * kCoarseOutputs, *error = errors + (i - first) * kCoarseOutputs;
            make_up(own, errors, factors + first, i - first);
            std::copy_n(own, kCoarseOutputs, error);
            pack_input(w, unit, static_cast<std::size_t>(making_up.order[i]), own, count);
            for (std::size_t j = 0; j < kCoarseOutputs; ++j) error[j] = (error[j] - own[j]) / factors[i];
        }
        for (std::size_t i = last; i < w.inputs; ++i)
            make_up(weights + i * kCoarseOutputs, errors, making_up.factor + i * w.inputs + first, last - first);
    }
}

struct Workspace {
    FloatBuffer x, scratch;
};

Workspace &workspace() {
    thread_local Workspace kept;
    return kept;
}

CoarseFunction function_of(const RowSet &set) {
#if defined(SLUICE_X86)
    if (std::strcmp(set.name, "avx512") == 0 && reduced_sets(Datatype::bf16)[0] != &kBf16Avx2 && reduced_sets(Datatype::bf16)[0] != &kBf16Portable)
        return add_coarse_bf16;
#endif
    return set.coarse;
}

}  // namespace

CoarseWeights empty_coarse(std::size_t outputs, std::size_t inputs) {
    CoarseWeights w{outputs, inputs, nullptr};
    w.data = weight_memory(w.bytes());
    return w;
}

CoarseWeights pack_coarse(const float *weight, std::size_t outputs, std::size_t inputs, const MakingUp &making_up) {
    CoarseWeights w = empty_coarse(outputs, inputs);
    std::vector<float> factors(outputs), steps(inputs);
    const float room = making_up.order ? kRoom : 1.0f;
    for (std::size_t o = 0; o < outputs; ++o) {
        const float *from = weight + o * inputs;
        // In double: a float overflows at the squares of some that are finite.
        double squares = 0;
        for (std::size_t k = 0; k < inputs; ++k) squares += static_cast<double>(from[k]) * from[k];
        const float size = std::min(static_cast<float>(std::sqrt(squares / static_cast<double>(inputs))), kMostScale),
                    factor = 1.0f / put_bf16(size, output_scale(w, o));
        factors[o] = std::isfinite(factor) ? factor : 0.0f;  // not of zeros, and of what is nearly zero
        for (std::size_t k = 0; k < inputs; ++k) steps[k] = std::max(steps[k], room * std::abs(from[k]) * factors[o]);
    }
    for (std::size_t k = 0; k < inputs; ++k) put_bf16(steps[k], w.steps() + 2 * k);
    std::vector<float> own(inputs * kCoarseOutputs);
    for (std::size_t unit = 0; unit < w.units(); ++unit) {
        const std::size_t first = unit * kCoarseOutputs, count = std::min(kCoarseOutputs, outputs - first);
        std::fill(own.begin(), own.end(), 0.0f);
        for (std::size_t i = 0; i < inputs; ++i) {
            const std::size_t k = making_up.order ? static_cast<std::size_t>(making_up.order[i]) : i;
            for (std::size_t j = 0; j < count; ++j)
                own[i * kCoarseOutputs + j] = weight[(first + j) * inputs + k] * factors[first + j];
            if (!making_up.order) pack_input(w, unit, k, own.data() + i * kCoarseOutputs, count);
        }
        if (making_up.order) pack_unit(w, unit, making_up, own.data(), count);
    }
    return w;
}

void unpack_coarse(const CoarseWeights &w, float *to) {
    for (std::size_t o = 0; o < w.outputs; ++o) {
        const std::size_t unit = o / kCoarseOutputs;
        for (std::size_t k = 0; k < w.inputs; ++k) {
            const Place place = place_of(w.unit(unit), k, o % kCoarseOutputs);
            const unsigned code = *input_scale(w, unit, k) >> coarse_scale_shift(k) & 15u;
            const float scale = kCoarseScales[code] * step_of(w, k) * from_bf16(output_scale(w, o));
            to[o * w.inputs + k] = kCoarseValues[*place.byte >> place.shift & 15] * scale;
        }
    }
}

void add_coarse(const CoarseWeights &w, const RowSet &set, const float *const *x, std::size_t rows, float *const *y) {
    Workspace &work = workspace();
    const std::size_t padded = w.padded_inputs();
    float *scaled = work.x.reserve(rows * padded);
    const float *from[kFewRows];
    for (std::size_t r = 0; r < rows; ++r) {
        float *own = scaled + r * padded;
        for (std::size_t k = 0; k < w.inputs; ++k) own[k] = x[r][k] * step_of(w, k);
        std::fill(own + w.inputs, own + padded, 0.0f);
        from[r] = own;
    }
    function_of(set)({w.unit(0), w.units(), padded, w.outputs, from, y, work.scratch.reserve(rows * padded)}, rows);
}

}  // namespace sluice
