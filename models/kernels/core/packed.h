// The packed layers, as Python holds them.
#pragma once

#include <memory>

#include "arguments.h"
#include "layers.h"
#include "reduced_arguments.h"

namespace sluice {

// A layer's packed weights. Never changed after construction, so any number of threads may share it.
struct Packed {
    Argument array;  // [blocks][taps][inputs][64]
    std::size_t outputs, inputs, kernel, stride, padding;
    const InstructionSet *set;
    std::shared_ptr<const ReducedWeights> reduced = nullptr;  // of bf16 and int8, which have no array and no set
    // Of fp32: see Weights.
    std::shared_ptr<const void> split = nullptr;
    std::size_t split_bytes = 0;
    bool halves = false;

    const char *datatype() const { return name_of(reduced ? reduced->datatype : Datatype::fp32); }
    const char *instruction_set() const { return reduced ? reduced->set->name : set->name; }
    std::size_t bytes() const { return reduced ? reduced->bytes() : array.items * sizeof(float) + split_bytes; }
    Weights weights() const { return {array.floats(), outputs, inputs, kernel * kernel, split.get(), halves}; }
};
struct PackedConvolution : Packed {};
struct PackedMatrix : Packed {};

inline void multiply_rows(const PackedMatrix &packed, const InputRows &x, Channels inputs, Channels outputs,
                          const Epilogue &epilogue, float *out, Threads *threads) {
    if (packed.reduced) return multiply_reduced(*packed.reduced, x, inputs, outputs, epilogue, out, threads);
    multiply_matrix(*packed.set, packed.weights(), x, inputs, outputs, epilogue, out, threads);
}

}  // namespace sluice
