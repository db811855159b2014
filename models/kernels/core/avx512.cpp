// AVX-512: 32 registers of 16 floats, and a compress instruction that makes packing cheap.
#define LANES 16
#define MANY_REGISTERS true
#include "loops.h"

#include <immintrin.h>

namespace sluice {
namespace {

// 16 neighbouring columns of a block of which at least one is active.
struct Group {
    const float *from;
    std::size_t offset;  // in a row of the panel
    __mmask16 active;
};

// Every store writes a whole vector: what it writes beyond its active columns is overwritten by the next group or the next row.
void pack_compressed(const Panel &p) {
    Group groups[kBlock];
    std::size_t count = 0;
    for (std::size_t j = 0; j < p.count;) {
        const std::size_t column = static_cast<std::size_t>(p.columns[j]), first = column / kLanes * kLanes;
        Group &group = groups[count++];
        group = {p.weights + (first / kBlock) * p.taps * p.inputs * kBlock + first % kBlock, j, 0};
        for (; j < p.count && static_cast<std::size_t>(p.columns[j]) < first + kLanes; ++j) {
            group.active = static_cast<__mmask16>(group.active | 1u << (static_cast<std::size_t>(p.columns[j]) - first));
        }
    }
    float *to = p.panel;
    for (std::size_t tap = 0; tap < p.taps; ++tap) {
        for (std::size_t k = 0; k < p.depth; ++k, to += p.row) {
            const std::size_t row = (tap * p.inputs + (p.index ? static_cast<std::size_t>(p.index[k]) : k)) * kBlock;
            for (std::size_t g = 0; g < count; ++g) {
                _mm512_storeu_ps(to + groups[g].offset, _mm512_maskz_compress_ps(groups[g].active, _mm512_load_ps(groups[g].from + row)));
            }
        }
    }
}

}  // namespace

const InstructionSet kAvx512 = SLUICE_INSTRUCTION_SET("avx512", pack_compressed);

}  // namespace sluice
