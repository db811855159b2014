// AVX2 with FMA.
#define LANES 8
#include "rows_loops.h"

namespace sluice {

const RowSet kRowsAvx2 = row_set("avx2");

}  // namespace sluice
