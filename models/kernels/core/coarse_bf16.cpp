// Two inputs at a time by VDPBF16PS; VPERMW makes 32 weights of bf16 of as many 4 bits.
#include <immintrin.h>

#include "coarse_set.h"

namespace sluice {
namespace {

// Rows times units whose sums fit the registers, beside the weights.
constexpr std::size_t kRowsByUnits = 4;

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
void scale_inputs(const float *x, const std::uint8_t *scales, std::size_t inputs, std::uint16_t *to, std::size_t ahead) {
    const auto part = [&](std::size_t k) {
        const __m128i numbers = _mm_loadu_si128(reinterpret_cast<const __m128i *>(scales + k));
        return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(numbers)), _mm512_loadu_ps(x + k));
    };
    for (std::size_t k = 0; k < inputs; k += 32) {
        _mm_prefetch(reinterpret_cast<const char *>(scales + k + ahead), _MM_HINT_T0);
        _mm512_storeu_si512(to + k, (__m512i)_mm512_cvtne2ps_pbh(part(k + 16), part(k)));
    }
}

__m512bh pair(const std::uint16_t *x) {
    std::uint32_t both;
    __builtin_memcpy(&both, x, 4);
    return (__m512bh)_mm512_set1_epi32(static_cast<int>(both));
}

void add(float *y, const float *scales, __m512 sums, std::size_t left) {
    if (left == 0) return;
    const auto mask = static_cast<__mmask16>(left < 16 ? (1u << left) - 1 : 0xffff);
    _mm512_mask_storeu_ps(
        y, mask, _mm512_fmadd_ps(sums, _mm512_maskz_loadu_ps(mask, scales), _mm512_maskz_loadu_ps(mask, y)));
}

// Units side by side by some rows, whose scaled inputs are in x [rows][units][inputs]: so much more of memory is on its
// way at a time.
template <std::size_t Rows, std::size_t Units>
void add_units(const CoarseProduct &p, const std::uint8_t *weights, const std::uint16_t *x, std::size_t row,
               std::size_t unit) {
    const __m512i values = table();
    const std::size_t unit_bytes = p.inputs * (kCoarseOutputs / 2 + 1);
    __m512 sums[Rows][Units][4] = {};  // of each part of a line
    for (std::size_t k = 0; k < p.inputs; k += 4) {
#pragma GCC unroll 4
        for (std::size_t u = 0; u < Units; ++u) {
            const std::uint8_t *line = weights + u * unit_bytes + k / 4 * kCoarseLine;
            _mm_prefetch(reinterpret_cast<const char *>(line + Units * unit_bytes), _MM_HINT_T0);
            const __m512i bits = _mm512_loadu_si512(line);
#pragma GCC unroll 4
            for (std::size_t part = 0; part < 4; ++part) {
                const __m512i own = part ? _mm512_srli_epi16(bits, 4 * static_cast<unsigned>(part)) : bits;
                const auto w = (__m512bh)_mm512_permutexvar_epi16(own, values);
#pragma GCC unroll 4
                for (std::size_t r = 0; r < Rows; ++r) {
                    const std::uint16_t *from = x + (r * Units + u) * p.inputs + k + 2 * (part / 2);
                    sums[r][u][part] = _mm512_dpbf16_ps(sums[r][u][part], w, pair(from));
                }
            }
        }
    }
    for (std::size_t r = 0; r < Rows; ++r) {
        for (std::size_t u = 0; u < Units; ++u) {
            const std::size_t first = (unit + u) * kCoarseOutputs, left = p.outputs - first;
#pragma GCC unroll 2
            for (std::size_t half = 0; half < 2; ++half) {
                const std::size_t own = left > 16 * half ? left - 16 * half : 0;
                const std::size_t at = first + 16 * half;
                add(p.y[row + r] + at, p.scales + at, _mm512_add_ps(sums[r][u][half], sums[r][u][2 + half]), own);
            }
        }
    }
}

template <std::size_t Units>
void add_side_by_side(const CoarseProduct &p, std::size_t rows, std::size_t unit) {
    auto *scaled = reinterpret_cast<std::uint16_t *>(p.scratch);
    const std::size_t line_bytes = p.inputs * kCoarseOutputs / 2, unit_bytes = line_bytes + p.inputs;
    const std::uint8_t *weights = p.weights + unit * unit_bytes;
    for (std::size_t r = 0; r < rows; ++r) {
        for (std::size_t u = 0; u < Units; ++u)
            scale_inputs(p.x[r], weights + u * unit_bytes + line_bytes, p.inputs, scaled + (r * Units + u) * p.inputs,
                         Units * unit_bytes);
    }
    const auto x = [&](std::size_t row) { return scaled + row * Units * p.inputs; };
    constexpr std::size_t kRows = kRowsByUnits / Units;
    std::size_t row = 0;
    for (; row + kRows <= rows; row += kRows) add_units<kRows, Units>(p, weights, x(row), row, unit);
    for (; row < rows; ++row) add_units<1, Units>(p, weights, x(row), row, unit);
}

}  // namespace

void add_coarse_bf16(const CoarseProduct &p, std::size_t rows) {
    std::size_t unit = 0;
    if (rows <= 2) {  // of more rows arithmetic is the limit, and weights are looked up once for four
        for (; unit + kCoarseSideBySide <= p.units; unit += kCoarseSideBySide)
            add_side_by_side<kCoarseSideBySide>(p, rows, unit);
    }
    for (; unit < p.units; ++unit) add_side_by_side<1>(p, rows, unit);
}

}  // namespace sluice
