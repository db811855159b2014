// NEON: 32 registers of 4 floats. Part of every 64-bit ARM processor, so there is nothing to detect.
#define LANES 4
#define MANY_REGISTERS true
#include "loops.h"

namespace sluice {

const InstructionSet kNeon = instruction_set("neon", plan_nothing, pack_then_tile);

}  // namespace sluice
