#include "reduced_avx512.h"

namespace sluice {

const ReducedSet kInt8Avx512 = avx512_set<Int8>();

}  // namespace sluice
