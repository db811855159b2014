// The module that Python imports.
#include "bindings.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "arrays.h"
#include "instruction_set.h"
#include "reduced_arguments.h"

NB_MODULE(_core, m) {
    // An interpreter that ends does not free every module, so its functions would be reported as leaked.
    nanobind::set_leak_warnings(false);

    sluice::import_numpy();
    sluice::bind_threads(m);
    sluice::bind_products(m);
    sluice::bind_feed_forward(m);
    sluice::bind_gate(m);
    sluice::bind_network(m);
    sluice::bind_positions(m);
    sluice::bind_norms(m);
    sluice::bind_attention(m);
    sluice::bind_depthwise(m);
    sluice::bind_roofline(m);
    sluice::bind_rows(m);
    sluice::bind_coarse(m);
    sluice::bind_decoder(m);
    sluice::bind_embedding(m);
    sluice::bind_encoder(m);
    sluice::bind_speech(m);

    m.def(
        "instruction_sets",
        [](const std::string &datatype) {
            return nanobind::tuple(nanobind::cast(sluice::instruction_sets_of(sluice::datatype_named(datatype))));
        },
        nanobind::arg("datatype") = "fp32");
}
