// Matrices for a few rows of activations, a step of a generation: each weight is used once or a few times a call, so the
// only limit is memory. A channel's weights are one run of it, or one to a block, so that those of an inactive channel
// are never read. Activations stay in float32.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "coarse.h"
#include "layers.h"
#include "reduced.h"
#include "rows_set.h"

namespace sluice {

// By input, weights lie as [block][input][32 · groups columns], by output as [output][32 · groups inputs], padded with
// zeros. In bf16 the 16 pairs of a group of 32 are those of its i-th and its (16 + i)-th value: a vector of them is two
// of floats by a shift and a mask. In int8 a value is a number from −127 to 127 times the scale of its output.
struct RowWeights {
    Datatype datatype;
    bool by_input;
    std::size_t outputs, inputs;
    std::size_t groups, blocks;
    const RowSet *set;
    const InstructionSet *floats;
    const ReducedSet *reduced;  // for many rows, unless fp32
    std::shared_ptr<void> data;
    std::vector<float> scales;  // of int8
    std::vector<float> bias;    // [outputs], or empty
    std::vector<float> norms;   // of the columns of W, [inputs]
    std::vector<float> means;   // of the inputs, or empty, and the bias with them folded in: bias + W · means
    std::vector<float> folded;
    std::shared_ptr<const CoarseWeights> coarse;  // for what is inactive, which is skipped without

    std::size_t row_bytes() const { return groups * kGroup * item_bytes(datatype); }
    std::size_t bytes() const { return blocks * (by_input ? inputs : outputs) * row_bytes(); }
    std::size_t padded_outputs() const { return by_input ? blocks * groups * kGroup : outputs; }
    // What fills the memory of the weights, in units of four bytes.
    std::size_t words() const { return bytes() / 4; }
    const std::uint8_t *row(std::size_t block, std::size_t index) const {
        return static_cast<const std::uint8_t *>(data.get()) + (block * (by_input ? inputs : outputs) + index) * row_bytes();
    }
};

// Names how weights lie in memory, which is the same for all instruction sets: to be raised with every change of it.
constexpr const char *kRowLayout = "native 2";

// With memory of zeros for the weights, and without norms and scales.
RowWeights empty_rows(std::size_t outputs, std::size_t inputs, Datatype datatype, bool by_input, const RowSet &set,
                      const InstructionSet &floats);

// `weight` is [outputs][inputs], finite unless fp32.
RowWeights pack_rows(const float *weight, std::size_t outputs, std::size_t inputs, Datatype datatype, bool by_input,
                     const RowSet &set, const InstructionSet &floats);

// With more active channels than one in so many, reading those and the coarse weights of all takes longer than reading all
// channels.
constexpr std::size_t kShareBesideCoarse = 4;

// sums[r] = Σ over the active inputs of x[r][k] · W[o, k], without scales: of all outputs, padded, where weights lie by
// input, of the active ones where by output. x[r] holds the values of the active inputs, or of all where by output,
// padded with zeros to whole groups. The list of the other side must have no ids.
void sum_few(const RowWeights &weights, const float *const *x, std::size_t rows, Channels inputs, Channels outputs,
             float *const *sums);

// out[r] = residual[r] + W · x[r] + bias for many rows [rows][active inputs] and the active outputs, by way of the packed
// layout, a part at a time. The list of the side that weights do not lie by must have no ids. bf16 and int8 weights are
// multiplied in bf16.
void multiply_many(const RowWeights &weights, const float *x, std::size_t rows, Channels inputs, Channels outputs,
                   const float *residual, float *out);

}  // namespace sluice
