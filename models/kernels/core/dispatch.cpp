#include "instruction_set.h"

namespace sluice {

const InstructionSet *const *instruction_sets() {
    struct Available {
        const InstructionSet *sets[4] = {};
        Available() {
            std::size_t count = 0;
#if defined(SLUICE_X86)
            __builtin_cpu_init();
            if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma")) sets[count++] = &kAvx512;
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
