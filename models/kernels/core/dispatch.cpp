#include "attention.h"
#include "split.h"

namespace sluice {

const InstructionSet *const *instruction_sets() {
    struct Available {
        const InstructionSet *sets[5] = {};
#if defined(SLUICE_X86)
        InstructionSet wide = kAvx512, avx2 = kAvx2;
#endif
#if defined(SLUICE_AMX)
        InstructionSet amx;
#endif
        Available() {
            std::size_t count = 0;
#if defined(SLUICE_X86)
            __builtin_cpu_init();
            wide.fetches_near = avx2.fetches_near = __builtin_cpu_is("amd");
            const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma");
            wide.attention = &kAvx512Attention;
            if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi"))
                wide.rounded_attention = &kBf16Attention;
#if defined(SLUICE_AMX)
            if (avx512 && has_tiles()) {
                amx = wide;
                amx.name = "amx";
                amx.split = &kSplitAmx;
                amx.tile_attention = &kTileAttention;
                sets[count++] = &amx;
            }
#endif
            if (avx512) sets[count++] = &wide;
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
