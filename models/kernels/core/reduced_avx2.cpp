// AVX2 with FMA, which has no instructions for either datatype.
#define LANES 8
#include "reduced_plain.h"

namespace sluice {

const ReducedSet kBf16Avx2 = plain_set<Datatype::bf16>("avx2");
const ReducedSet kInt8Avx2 = plain_set<Datatype::int8>("avx2");

}  // namespace sluice
