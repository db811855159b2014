// Two inputs at a time by VDPBF16PS; VPERMW makes 32 weights of bf16 of as many 4 bits.
#include <immintrin.h>

#include "coarse_set.h"

namespace sluice {
namespace {

// Rows whose sums fit the registers, beside the weights.
constexpr std::size_t kRowsAtOnce = 4;

// How far ahead weights are fetched: several units, and at the end of a matrix some of the next one's. The processor by
// itself, or half as far ahead, has too little of memory on its way at a time.
constexpr std::size_t kAhead = 32 << 10;

// 16 values twice: VPERMW looks at 5 bits, of which the highest is another weight's.
__m512i table() {
    alignas(64) std::uint16_t values[32];
    for (std::size_t i = 0; i < 32; ++i) {
        std::uint32_t bits;
        __builtin_memcpy(&bits, &kCoarseValues[i % 16], 4);
        values[i] = static_cast<std::uint16_t>(bits >> 16);
    }
    return _mm512_load_si512(values);
}

// One row's activations times the scales of a unit, in bf16.
void scale_inputs(const float *x, const std::uint8_t *scales, std::size_t inputs, std::uint16_t *to) {
    const __m512 values = _mm512_loadu_ps(kCoarseScales);
    for (std::size_t k = 0; k < inputs; k += 32) {
        const auto *bytes = reinterpret_cast<const __m128i *>(scales + k / 2);
        const __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes));  // a look-up sees the lowest 4 bits
        const __m512 first = _mm512_permutexvar_ps(codes, values),
                     second = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 4), values);
        _mm_prefetch(reinterpret_cast<const char *>(bytes) + kAhead, _MM_HINT_T0);
        _mm512_storeu_si512(to + k, (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(second, _mm512_loadu_ps(x + k + 16)),
                                                                 _mm512_mul_ps(first, _mm512_loadu_ps(x + k))));
    }
}

__m512bh pair(const std::uint16_t *x) {
    std::uint32_t both;
    __builtin_memcpy(&both, x, 4);
    return (__m512bh)_mm512_set1_epi32(static_cast<int>(both));
}

// `scales` are of bf16.
void add(float *y, const std::uint8_t *scales, __m512 sums, std::size_t left) {
    if (left == 0) return;
    const auto mask = static_cast<__mmask16>(left < 16 ? (1u << left) - 1 : 0xffff);
    const __m512i upper = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(scales)));
    const auto scale = (__m512)_mm512_slli_epi32(upper, 16);
    _mm512_mask_storeu_ps(y, mask, _mm512_fmadd_ps(sums, scale, _mm512_maskz_loadu_ps(mask, y)));
}

// A unit by some rows, whose scaled inputs are in x [rows][inputs].
template <std::size_t Rows>
void add_unit(const CoarseProduct &p, const std::uint8_t *weights, const std::uint16_t *x, std::size_t row,
              std::size_t unit) {
    const __m512i values = table();
    __m512 sums[Rows][4] = {};  // of each part of a line
    for (std::size_t k = 0; k < p.inputs; k += 4) {
        const std::uint8_t *line = weights + k / 4 * kCoarseLine;
        _mm_prefetch(reinterpret_cast<const char *>(line + kAhead), _MM_HINT_T0);
        const __m512i bits = _mm512_loadu_si512(line);
#pragma GCC unroll 4
        for (std::size_t part = 0; part < 4; ++part) {
            const __m512i own = part ? _mm512_srli_epi16(bits, 4 * static_cast<unsigned>(part)) : bits;
            const auto w = (__m512bh)_mm512_permutexvar_epi16(own, values);
#pragma GCC unroll 4
            for (std::size_t r = 0; r < Rows; ++r)
                sums[r][part] = _mm512_dpbf16_ps(sums[r][part], w, pair(x + r * p.inputs + k + 2 * (part / 2)));
        }
    }
    const std::size_t first = unit * kCoarseOutputs, left = p.outputs - first;
    const std::uint8_t *scales = weights + CoarseUnit{p.inputs}.output_scales();
    _mm_prefetch(reinterpret_cast<const char *>(scales + kAhead), _MM_HINT_T0);
    for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
        for (std::size_t half = 0; half < 2; ++half) {
            const std::size_t at = first + 16 * half, own = left > 16 * half ? left - 16 * half : 0;
            add(p.y[row + r] + at, scales + 32 * half, _mm512_add_ps(sums[r][half], sums[r][2 + half]), own);
        }
    }
}

// As many as are left, up to Rows.
template <std::size_t Rows>
void add_unit(const CoarseProduct &p, const std::uint8_t *weights, const std::uint16_t *x, std::size_t row,
              std::size_t unit, std::size_t rows) {
    if (rows >= Rows) return add_unit<Rows>(p, weights, x, row, unit);
    if constexpr (Rows > 1) add_unit<Rows - 1>(p, weights, x, row, unit, rows);
}

}  // namespace

void add_coarse_bf16(const CoarseProduct &p, std::size_t rows) {
    auto *scaled = reinterpret_cast<std::uint16_t *>(p.scratch);
    const CoarseUnit layout{p.inputs};
    const std::uint8_t *weights = p.weights;
    for (std::size_t unit = 0; unit < p.units; ++unit, weights += layout.bytes()) {
        for (std::size_t r = 0; r < rows; ++r)
            scale_inputs(p.x[r], weights + layout.input_scales(), p.inputs, scaled + r * p.inputs);
        for (std::size_t row = 0; row < rows; row += kRowsAtOnce)
            add_unit<kRowsAtOnce>(p, weights, scaled + row * p.inputs, row, unit, rows - row);
    }
}

}  // namespace sluice
