// AVX2 with FMA: 16 registers of 8 floats.
#define LANES 8
#define MANY_REGISTERS false
#include "loops.h"

namespace sluice {

const InstructionSet kAvx2 = instruction_set("avx2", plan_nothing, pack_then_tile);

}  // namespace sluice
