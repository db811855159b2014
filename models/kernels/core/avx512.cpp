// AVX-512: 32 registers of 16 floats, and two-source permutes that pack weights while the first tile multiplies by
// them.
#define LANES 16
#define MANY_REGISTERS true
#include "loops.h"

#include <immintrin.h>

namespace sluice {
namespace {

void plan(Pick &pick, const Panel &p, std::size_t first) {
    const std::size_t count = p.count - first < kLanes ? p.count - first : kLanes;
    __mmask16 left = static_cast<__mmask16>((1u << count) - 1);
    const __m512i columns = _mm512_maskz_loadu_epi32(left, p.columns + first);
    const __m512i lines = _mm512_srli_epi32(columns, 4), lanes = _mm512_and_si512(columns, _mm512_set1_epi32(15));
    const __m512i kept = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i taken = _mm512_add_epi32(lanes, _mm512_set1_epi32(16));
    for (pick.count = 0; left; ++pick.count) {
        const std::int32_t line = p.columns[first + static_cast<std::size_t>(__builtin_ctz(left))] / 16;
        const __mmask16 here = _mm512_mask_cmpeq_epi32_mask(left, lines, _mm512_set1_epi32(line));
        const std::size_t column = static_cast<std::size_t>(line) * kLine;
        pick.lines[pick.count] = p.weights + column / kBlock * p.block + column % kBlock;
        if (pick.count) {
            _mm512_store_si512(pick.steps[pick.count - 1],
                               _mm512_mask_mov_epi32(pick.count == 1 ? lanes : kept, here, taken));
        }
        left = static_cast<__mmask16>(left & ~here);
    }
    if (pick.count == 1) {
        pick.lines[pick.count++] = pick.lines[0];
        _mm512_store_si512(pick.steps[0], lanes);
    }
}

void plan(Panel &p) {
    for (std::size_t first = 0; first < p.count; first += kLanes) plan(p.picks[first / kLanes], p, first);
}

constexpr std::size_t kAhead = 8;

// Reads the layer's weights where they lie, picks the active columns and leaves them in the panel.
struct Packing {
    const std::int32_t *index;
    const Pick *picks;
    std::size_t first_tap, tap_step;
    float *to;
    std::size_t row;
    std::size_t last;
    std::size_t from = 0;

    void enter(std::size_t tap) { from = first_tap + tap * tap_step; }

    template <std::size_t Vectors>
    void read(std::size_t k, Vector (&w)[Vectors]) {
        const std::size_t at = from + (index ? static_cast<std::size_t>(index[k]) : k) * kBlock;
        const std::size_t ahead = k + kAhead < last ? k + kAhead : last;
        const std::size_t next = from + (index ? static_cast<std::size_t>(index[ahead]) : ahead) * kBlock;
#pragma GCC unroll 4
        for (std::size_t v = 0; v < Vectors; ++v) {
            const Pick &pick = picks[v];
            __builtin_prefetch(pick.lines[0] + next);
            __builtin_prefetch(pick.lines[1] + next);
            __m512 picked = _mm512_permutex2var_ps(_mm512_load_ps(pick.lines[0] + at), _mm512_load_si512(pick.steps[0]),
                                                   _mm512_load_ps(pick.lines[1] + at));
            for (std::size_t line = 2; line < pick.count; ++line) {
                __builtin_prefetch(pick.lines[line] + next);
                picked = _mm512_permutex2var_ps(picked, _mm512_load_si512(pick.steps[line - 1]),
                                                _mm512_load_ps(pick.lines[line] + at));
            }
            _mm512_store_ps(to + v * kLanes, picked);
            w[v] = picked;
        }
        to += row;
    }
};

void packing_tile(const Tile &t, const Panel &p, std::size_t tap, std::size_t rows, std::size_t vectors) {
    const Packing packing{t.index, p.picks,    tap + (t.index ? 0 : t.begin * kBlock), t.layer_tap, p.packed,
                          p.row,   t.depth - 1};
    with_size<1, 1>(rows, vectors, [&](auto size) { tile<size.rows, size.vectors>(t, packing); });
}

}  // namespace

const InstructionSet kAvx512 = instruction_set("avx512", plan, packing_tile);

}  // namespace sluice
