// The tile registers of AMX.
#pragma once

#include "reduced_set.h"

#include <immintrin.h>

namespace sluice {
namespace {

// Registers 0 … 3 hold sums, 4 and 5 activations, 6 and 7 weights.
struct alignas(64) Configuration {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {};
};

void enter(std::size_t tile_rows) {
    Configuration configuration;
    for (std::size_t t = 0; t < 8; ++t) configuration.rows[t] = static_cast<std::uint8_t>(t < 6 ? tile_rows : kTileLines);
    // The intrinsic says that it reads eight bytes.
    asm volatile("ldtilecfg %0" ::"m"(configuration));
}

void leave() { _tile_release(); }

// The intrinsics for loads do not say that they read memory.
inline void barrier() { asm volatile("" ::: "memory"); }

template <Datatype D, int Sum, int Activations, int Weights>
inline void multiply_tiles() {
    if constexpr (D == Datatype::bf16) {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(Activations), "i"(Weights));
    } else {
        asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(Activations), "i"(Weights));
    }
}

}  // namespace
}  // namespace sluice
