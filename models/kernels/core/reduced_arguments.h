// The packing of reduced-precision layers from what Python passes, checked as in arguments.h.
#pragma once

#include <memory>
#include <vector>

#include "arguments.h"
#include "reduced.h"

namespace sluice {

Datatype datatype_named(const std::string &name);
const char *name_of(Datatype datatype);

// The names of those that this processor can run, best first.
std::vector<std::string> instruction_sets_of(Datatype datatype);

// `weight` is [outputs, inputs, …taps], its sizes checked.
std::shared_ptr<const ReducedWeights> reduced_weights(const Argument &weight, std::size_t taps, Datatype datatype,
                                                      const std::optional<std::string> &instruction_set);

}  // namespace sluice
