#include "attention.h"
#include "split.h"

namespace sluice {

const InstructionSet *const *instruction_sets() {
    struct Available {
        const InstructionSet *sets[5] = {};
#if defined(SLUICE_AMX)
        InstructionSet amx = kAvx512;
#endif
        Available() {
            std::size_t count = 0;
#if defined(SLUICE_X86)
            __builtin_cpu_init();
            const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma");
#if defined(SLUICE_AMX)
            if (avx512 && has_tiles()) {
                amx.name = "amx";
                amx.split = &kSplitAmx;
                amx.tile_attention = &kTileAttention;
                sets[count++] = &amx;
            }
#endif
            if (avx512) sets[count++] = &kAvx512;
            if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets[count++] = &kAvx2;
#elif defined(SLUICE_NEON)
            sets[count++] = &kNeon;
#endif
            sets[count] = &kPortable;
        }
    };
    static const Available available;
    return available.sets;
}

}  // namespace sluice
