// AVX-512, with the numbers that AMD's processors are fastest with.
#define LANES 16
#define FOR_ZEN true
#include "rows_loops.h"

namespace sluice {

const RowSet kRowsZen = row_set("avx512");

}  // namespace sluice
