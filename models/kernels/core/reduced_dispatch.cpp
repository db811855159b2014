#include "reduced_set.h"

#if defined(SLUICE_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sluice {

namespace {

#if defined(SLUICE_AMX)
// Linux lets a process use the tile registers, 8 KiB more to save at a switch, once it has asked for them.
bool may_use_tiles() {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool find_tiles() {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl")) return false;
    unsigned a = 7, b = 0, c = 0, d = 0;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
    return (d & kBf16) && (d & kTile) && (d & kInt8) && may_use_tiles();
}
#endif

struct Available {
    const ReducedSet *bf16[5] = {}, *int8[5] = {};

    Available() {
        std::size_t wide = 0, whole = 0;
#if defined(SLUICE_X86)
        __builtin_cpu_init();
        const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl");
        const bool has_bf16 = avx512 && __builtin_cpu_supports("avx512bf16"),
                   has_int8 = avx512 && __builtin_cpu_supports("avx512vnni");
#if defined(SLUICE_AMX)
        if (has_bf16 && has_int8 && has_tiles()) {
            bf16[wide++] = &kBf16Amx;
            int8[whole++] = &kInt8Amx;
        }
#endif
        if (has_bf16) bf16[wide++] = &kBf16Avx512;
        if (has_int8) int8[whole++] = &kInt8Avx512;
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
            bf16[wide++] = &kBf16Avx2;
            int8[whole++] = &kInt8Avx2;
        }
#endif
        bf16[wide] = &kBf16Portable;
        int8[whole] = &kInt8Portable;
    }
};

}  // namespace

#if defined(SLUICE_AMX)
bool has_tiles() {
    static const bool found = find_tiles();
    return found;
}
#endif

const ReducedSet *const *reduced_sets(Datatype datatype) {
    static const Available available;
    return datatype == Datatype::int8 ? available.int8 : available.bf16;
}

}  // namespace sluice
