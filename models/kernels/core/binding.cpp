// The module that Python imports.
#include "bindings.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "instruction_set.h"

NB_MODULE(_core, m) {
    // An interpreter that ends does not free every module, so its functions would be reported as leaked.
    nanobind::set_leak_warnings(false);

    sluice::bind_products(m);
    sluice::bind_gate(m);
    sluice::bind_positions(m);
    sluice::bind_norms(m);
    sluice::bind_attention(m);
    sluice::bind_depthwise(m);

    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (auto set = sluice::instruction_sets(); *set; ++set) names.emplace_back((*set)->name);
        return nanobind::tuple(nanobind::cast(names));
    });
}
