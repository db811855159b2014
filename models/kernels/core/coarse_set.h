// The products with coarse weights, once per instruction set. All of them read the same layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sluice {

constexpr std::size_t kCoarseOutputs = 32;  // of a unit
constexpr std::size_t kCoarseInputs = 32;   // to a multiple of which they are padded

// What a weight may be, times its scale. The eight magnitudes are those that lose least of normally distributed weights
// of which the largest of 32 is 1 (Lloyd 1982), as numbers of bf16.
constexpr float kCoarseValues[16] = {
    0.051025390625f,  0.154296875f,  0.259765625f,  0.373046875f,  0.49609375f,  0.6328125f,  0.796875f,  1.0f,
    -0.051025390625f, -0.154296875f, -0.259765625f, -0.373046875f, -0.49609375f, -0.6328125f, -0.796875f, -1.0f};

// In a line of 4 inputs by 32 outputs, the 4 bits of input 2q + h and output 16v + c begin at bit 16h + 8q + 4v of its
// c-th word of 32 bits.
constexpr unsigned coarse_shift(std::size_t input, std::size_t half) {
    return static_cast<unsigned>(16 * (input % 2) + 8 * (input / 2) + 4 * half);
}

constexpr std::size_t kCoarseLine = 64;  // bytes

// What the scale of an input in a unit may be, times its step: a quarter to one, each about 1.1 times the one before, and
// 0, as numbers of bf16.
constexpr float kCoarseScales[16] = {
    0.0f, 0.25f, 0.275390625f, 0.3046875f, 0.3359375f, 0.37109375f,
    0.41015625f, 0.453125f, 0.5f, 0.55078125f, 0.609375f,
    0.671875f, 0.7421875f, 0.8203125f, 0.90625f, 1.0f};

// The scale of input k has the lower bits of byte k % 16 of its 32 inputs' 16 for the first half of them.
constexpr std::size_t coarse_scale_byte(std::size_t input) { return input / 32 * 16 + input % 16; }
constexpr unsigned coarse_scale_shift(std::size_t input) { return static_cast<unsigned>(input / 16 % 2 * 4); }

// A unit of so many inputs, padded: its lines, the scales of its inputs, and those of its outputs in bf16.
struct CoarseUnit {
    std::size_t inputs;

    constexpr std::size_t input_scales() const { return inputs * kCoarseOutputs / 2; }
    constexpr std::size_t output_scales() const { return input_scales() + inputs / 2; }
    constexpr std::size_t bytes() const { return (output_scales() + 2 * kCoarseOutputs + 63) / 64 * 64; }
};

inline float from_bf16(const std::uint8_t *from) {
    std::uint16_t upper;
    std::memcpy(&upper, from, sizeof upper);
    const std::uint32_t bits = static_cast<std::uint32_t>(upper) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

struct CoarseProduct {
    const std::uint8_t *weights;
    std::size_t units, inputs;  // inputs padded
    std::size_t outputs;  // of the last unit fewer than of the others
    const float *const *x;  // of each row, times the step of each input, padded with zeros
    float *const *y;        // added to
    float *scratch;         // [rows][inputs]
};

using CoarseFunction = void (*)(const CoarseProduct &, std::size_t rows);

#if defined(SLUICE_X86)
// By VPERMW and VDPBF16PS, where activations times scales are rounded to bf16.
void add_coarse_bf16(const CoarseProduct &, std::size_t rows);
#endif

}  // namespace sluice
