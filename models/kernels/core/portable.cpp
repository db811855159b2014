// What every processor can run: the compiler lowers vectors of four floats to whatever its baseline has.
#define LANES 4
#define MANY_REGISTERS false
#include "loops.h"

namespace sluice {

const InstructionSet kPortable = instruction_set("portable", plan_nothing, pack_then_tile);

}  // namespace sluice
