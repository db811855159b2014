// AVX-512, beside the tile unit, which is for many rows.
#define LANES 16
#include "rows_loops.h"

namespace sluice {

const RowSet kRowsAmx = row_set("amx");

}  // namespace sluice
