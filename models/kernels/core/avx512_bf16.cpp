#include "reduced_avx512.h"

namespace sluice {

const ReducedSet kBf16Avx512 = avx512_set<Bf16>();

}  // namespace sluice
