// AVX-512.
#define LANES 16
#include "rows_loops.h"

namespace sluice {

const RowSet kRowsAvx512 = row_set("avx512");

}  // namespace sluice
