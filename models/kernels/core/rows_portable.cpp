// Any processor.
#define LANES 4
#include "rows_loops.h"

namespace sluice {

const RowSet kRowsPortable = row_set("portable");

}  // namespace sluice
