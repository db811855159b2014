// The product with coarse weights as a template over the vector width; see loops.h.
#pragma once

#include "coarse_set.h"
#include "vector.h"

#if LANES == 8
#include <immintrin.h>
#endif

namespace sluice {
namespace {

typedef std::uint32_t CoarseVector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

// The value of each code, whose other bits may be anything.
inline Vector coarse_values(CoarseVector codes) {
#if LANES == 16
    return (Vector)_mm512_permutexvar_ps((__m512i)codes, _mm512_loadu_ps(kCoarseValues));
#elif LANES == 8
    // The lower eight values are the magnitudes, and the fourth bit is the sign's.
    const __m256 magnitudes = _mm256_permutevar8x32_ps(_mm256_loadu_ps(kCoarseValues), (__m256i)codes);
    const __m256i signs = _mm256_slli_epi32(_mm256_and_si256((__m256i)codes, _mm256_set1_epi32(8)), 28);
    return (Vector)_mm256_xor_ps(magnitudes, (__m256)signs);
#else
    Vector values;
    for (std::size_t lane = 0; lane < kLanes; ++lane) values[lane] = kCoarseValues[codes[lane] & 15];
    return values;
#endif
}

// One unit by one row; x are its inputs times the scales of the unit.
void add_coarse_unit(const std::uint8_t *weights, const float *x, std::size_t inputs, float *y, std::size_t left) {
    constexpr std::size_t kParts = 16 / kLanes;
    Vector sums[2][kParts] = {};
    for (std::size_t k = 0; k < inputs; k += 4) {
#pragma GCC unroll 4
        for (std::size_t part = 0; part < kParts; ++part) {
            const CoarseVector bits =
                *reinterpret_cast<const CoarseVector *>(weights + k / 4 * kCoarseLine + part * kLanes * 4);
#pragma GCC unroll 4
            for (std::size_t i = 0; i < 4; ++i) {
#pragma GCC unroll 2
                for (std::size_t half = 0; half < 2; ++half)
                    sums[half][part] += coarse_values(bits >> coarse_shift(i, half)) * broadcast(x[k + i]);
            }
        }
    }
    float scales[kCoarseOutputs];
    for (std::size_t j = 0; j < kCoarseOutputs; ++j)
        scales[j] = from_bf16(weights + CoarseUnit{inputs}.output_scales() + 2 * j);
    for (std::size_t half = 0; half < 2; ++half) {
        for (std::size_t part = 0; part < kParts; ++part) {
            const std::size_t first = 16 * half + part * kLanes;
            if (left <= first) continue;
            if (left - first >= kLanes) {
                store(y + first, load(y + first) + sums[half][part] * load(scales + first));
            } else {
                const Vector scaled = sums[half][part] * load_first(scales + first, left - first);
                store_first(y + first, load_first(y + first, left - first) + scaled, left - first);
            }
        }
    }
}

void add_coarse_rows(const CoarseProduct &p, std::size_t rows) {
    const CoarseUnit layout{p.inputs};
    for (std::size_t unit = 0; unit < p.units; ++unit) {
        const std::uint8_t *weights = p.weights + unit * layout.bytes(), *scales = weights + layout.input_scales();
        const std::size_t first = unit * kCoarseOutputs;
        for (std::size_t r = 0; r < rows; ++r) {
            for (std::size_t k = 0; k < p.inputs; ++k) {
                const unsigned code = scales[coarse_scale_byte(k)] >> coarse_scale_shift(k) & 15u;
                p.scratch[k] = p.x[r][k] * kCoarseScales[code];
            }
            add_coarse_unit(weights, p.scratch, p.inputs, p.y[r] + first, p.outputs - first);
        }
    }
}

}  // namespace
}  // namespace sluice
