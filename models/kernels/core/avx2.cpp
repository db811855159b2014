// AVX2 with FMA: 16 registers of 8 floats.
#define LANES 8
#define MANY_REGISTERS false
#include "loops.h"

namespace sluice {

const InstructionSet kAvx2 = SLUICE_INSTRUCTION_SET("avx2", pack);

}  // namespace sluice
