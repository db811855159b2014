// The layers that Python sees, over raw pointers. The binding has checked every shape and every channel id before these
// run. Threads, where there are any, share the active outputs of a call.
#pragma once

#include "product.h"
#include "threads.h"

namespace sluice {

struct Convolution {
    std::size_t height, width;  // of the input
    std::size_t kernel, stride, padding;

    std::size_t out_height() const { return (height + 2 * padding - kernel) / stride + 1; }
    std::size_t out_width() const { return (width + 2 * padding - kernel) / stride + 1; }
};

// x is [height][width][inputs.count], out is [out_height][out_width][outputs.count]. The indirect algorithm of XNNPACK
// (Dukhan 2019), with a pointer to a row of taps where it has one to a tap: in a padded image neighbouring taps are
// neighbours in memory, and their inputs are one long list.
void convolve(const InstructionSet &set, const Weights &weights, const Convolution &shape, const float *x,
              Channels inputs, Channels outputs, const Epilogue &epilogue, float *out, Threads *threads = nullptr);

// Rows of x are of inputs.count floats, out is [rows][outputs.count].
void multiply_matrix(const InstructionSet &set, const Weights &weights, const InputRows &x, Channels inputs, Channels outputs,
                     const Epilogue &epilogue, float *out, Threads *threads = nullptr);

}  // namespace sluice
