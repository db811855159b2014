#include "attention.h"
#include "split.h"

namespace sluice {

const InstructionSet *const *instruction_sets() {
    struct Available {
        const InstructionSet *sets[5] = {};
#if defined(SLUICE_X86)
        InstructionSet avx512 = kAvx512, avx2 = kAvx2;
#endif
#if defined(SLUICE_AMX)
        InstructionSet amx = kAvx512;
#endif
        Available() {
            std::size_t count = 0;
#if defined(SLUICE_X86)
            __builtin_cpu_init();
            const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma");
            avx512.fetches_near = avx2.fetches_near = __builtin_cpu_is("amd");
#if defined(SLUICE_AMX)
            if (wide && has_tiles()) {
                amx.name = "amx";
                amx.split = &kSplitAmx;
                amx.tile_attention = &kTileAttention;
                sets[count++] = &amx;
            }
#endif
            if (wide) sets[count++] = &avx512;
            if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets[count++] = &avx2;
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
