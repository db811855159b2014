// One file to a family of functions; each adds its own to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace sluice {

void bind_threads(nanobind::module_ &m);
void bind_products(nanobind::module_ &m);
void bind_feed_forward(nanobind::module_ &m);
void bind_gate(nanobind::module_ &m);
void bind_network(nanobind::module_ &m);
void bind_positions(nanobind::module_ &m);
void bind_norms(nanobind::module_ &m);
void bind_attention(nanobind::module_ &m);
void bind_depthwise(nanobind::module_ &m);
void bind_roofline(nanobind::module_ &m);
void bind_rows(nanobind::module_ &m);
void bind_coarse(nanobind::module_ &m);
void bind_decoder(nanobind::module_ &m);
void bind_embedding(nanobind::module_ &m);
void bind_encoder(nanobind::module_ &m);
void bind_speech(nanobind::module_ &m);

}  // namespace sluice
