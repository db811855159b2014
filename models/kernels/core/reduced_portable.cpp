// Any processor.
#define LANES 4
#include "reduced_plain.h"

namespace sluice {

const ReducedSet kBf16Portable = plain_set<Datatype::bf16>("portable");
const ReducedSet kInt8Portable = plain_set<Datatype::int8>("portable");

}  // namespace sluice
