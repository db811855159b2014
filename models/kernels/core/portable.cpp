// What every processor can run: the compiler lowers vectors of four floats to whatever its baseline has.
#define LANES 4
#define MANY_REGISTERS false
#include "loops.h"

namespace sluice {

const InstructionSet kPortable = SLUICE_INSTRUCTION_SET("portable", pack);

}  // namespace sluice
