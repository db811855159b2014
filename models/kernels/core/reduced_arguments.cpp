#include "reduced_arguments.h"

#include <cmath>

namespace sluice {
namespace {

const ReducedSet &reduced_set_named(Datatype datatype, const std::optional<std::string> &name) {
    std::string known;
    for (auto set = reduced_sets(datatype); *set; ++set) {
        if (!name || *name == (*set)->name) return **set;
        known += std::string(known.empty() ? "" : ", ") + (*set)->name;
    }
    reject("instruction_set must be one that this processor has for " + std::string(name_of(datatype)) + " (" + known +
           "), not '" + *name + "'");
}

}  // namespace

Datatype datatype_named(const std::string &name) {
    for (const Datatype datatype : {Datatype::fp32, Datatype::bf16, Datatype::int8}) {
        if (name == name_of(datatype)) return datatype;
    }
    reject("datatype must be fp32, bf16 or int8, not '" + name + "'");
}

const char *name_of(Datatype datatype) {
    switch (datatype) {
        case Datatype::bf16: return "bf16";
        case Datatype::int8: return "int8";
        default: return "fp32";
    }
}

std::vector<std::string> instruction_sets_of(Datatype datatype) {
    std::vector<std::string> names;
    if (datatype == Datatype::fp32) {
        for (auto set = instruction_sets(); *set; ++set) names.emplace_back((*set)->name);
    } else {
        for (auto set = reduced_sets(datatype); *set; ++set) names.emplace_back((*set)->name);
    }
    return names;
}

std::shared_ptr<const ReducedWeights> reduced_weights(const Argument &weight, std::size_t taps, Datatype datatype,
                                                      const std::optional<std::string> &instruction_set) {
    const std::size_t outputs = weight.size(0), inputs = weight.size(1), size = weight.items;
    if (datatype == Datatype::int8 && inputs > kMostInt8Inputs)
        reject("weight must have at most " + std::to_string(kMostInt8Inputs) + " inputs for int8");
    const ReducedSet &set = reduced_set_named(datatype, instruction_set);
    const nb::gil_scoped_release released;
    bool finite = true;
    for (std::size_t i = 0; i < size; ++i) finite = finite && std::isfinite(weight.floats()[i]);
    if (!finite) {
        const nb::gil_scoped_acquire acquired;
        reject("weight must be finite for " + std::string(name_of(datatype)));
    }
    return std::make_shared<const ReducedWeights>(reduce_weights(weight.floats(), outputs, inputs, taps, datatype, set));
}

}  // namespace sluice
