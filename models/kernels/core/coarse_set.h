// The products with coarse weights, once per instruction set. All of them read the same layout.
#pragma once

#include <cstddef>
#include <cstdint>

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

struct CoarseProduct {
    const std::uint8_t *weights;
    std::size_t units, inputs;  // inputs padded
    std::size_t outputs;  // of the last unit fewer than of the others
    const float *scales;    // [outputs]
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
