// The product of many rows with a whole matrix by seven products of halves in place of eight: Strassen (1969), in Winograd's
// form. Halves are of the rows, of the inputs, and of each block of columns. A tile is some rows of both halves by a block,
// so that all sums of the seven stay in the nearest cache, and its first tile mixes a block's weights on their way to the
// multipliers, as Huang et al. (Strassen's Algorithm Reloaded, 2016) mix what they pack.
//
// Rounding errors are relative to the larger of two rows that are mixed, of two columns and of two inputs, and not to a
// result's own. So it is for such as are of about the same size.
#pragma once

#include "product.h"
#include "threads.h"

namespace sluice {

// False for a matrix that is small, or whose columns or inputs are not finite or not of about the same size.
bool can_be_halved(const Weights &weights);

// Returns how many outputs it has computed, those of the whole blocks. None, and nothing is written, where there are few
// rows, or two that are mixed are not finite or not of about the same size. Threads share blocks and rows evenly, and change no
// bit. The weights can be halved.
std::size_t multiply_by_halves(const InstructionSet &set, const Weights &weights, const InputRows &x,
                               const Epilogue &epilogue, float *out, Threads *threads);

}  // namespace sluice
