// Both products of a feed-forward block.
#pragma once

#include "packed.h"

namespace sluice {

// out [rows][down.outputs] of x [rows][up.inputs] over the active neurons: `first` is their epilogue, `second` that of their
// sums. The result may lie over x where its rows are normed first.
void run_feed_forward(const PackedMatrix &up, const PackedMatrix &down, const InputRows &x, Channels neurons,
                      const Epilogue &first, const Epilogue &second, float *out, Threads *threads);

}  // namespace sluice
