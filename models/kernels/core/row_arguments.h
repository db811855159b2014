// The layers for a few rows, as Python holds them.
#pragma once

#include <memory>

#include "arguments.h"
#include "rows.h"

namespace sluice {

// Never changed after construction, so any number of threads may share it.
struct RowMatrix {
    std::shared_ptr<const RowWeights> weights;
};

struct CoarseMatrix {
    std::shared_ptr<const CoarseWeights> weights;
};

// The values of a float32 vector, or none at all for None. Raises a ValueError for another length.
std::vector<float> float_vector(nb::handle value, const char *name, std::size_t length, const char *what);

// The other way: a new array of the values.
nb::object copied(const std::vector<float> &values);

}  // namespace sluice
