// AVX-512 without the tile unit.
#define LANES 16
#define FOR_ZEN true
#include "rows_loops.h"

namespace sluice {

const RowSet kRowsAvx512 = row_set("avx512");

}  // namespace sluice
