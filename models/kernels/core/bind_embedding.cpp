// Embeddings of tokens, and products of them that are looked up.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include "arguments.h"
#include "bindings.h"
#include "embedding.h"
#include "reduced_arguments.h"

namespace sluice {
namespace {

LookupTable new_table(std::size_t rows, std::size_t width, const std::string &datatype_) {
    if (width == 0 || width > kMostChannels) reject("width must be from 1 to 2^24");
    if (rows > kMostChannels) reject("rows must be at most 2^24");
    const Datatype datatype = datatype_named(datatype_);
    if (datatype == Datatype::int8) reject("datatype must be fp32 or bf16, not 'int8'");
    return empty_table(rows, width, datatype == Datatype::bf16);
}

void fill(LookupTable &table, std::size_t first, nb::handle values_) {
    const Argument values = float_array(values_, "values", 2);
    const std::size_t count = values.size(0);
    if (values.size(1) != table.width)
        reject("values must have " + std::to_string(table.width) + " channels, not " + std::to_string(values.size(1)));
    if (first > table.rows || count > table.rows - first)
        reject("values must end at row " + std::to_string(table.rows) + " of the table at most");
    const nb::gil_scoped_release released;
    fill_rows(table, first, count, values.floats());
}

// An int32 array of rows of a table.
Argument rows_of(nb::handle value, const char *name, std::size_t limit) {
    Argument argument = cpu_array(value, name, Items::int32);
    if (argument.rank != 1) reject(std::string(name) + " must have 1 dimension, not " + std::to_string(argument.rank));
    for (std::size_t i = 0; i < argument.items; ++i) {
        const std::int32_t row = argument.integers()[i];
        if (row < 0 || static_cast<std::size_t>(row) >= limit)
            reject(std::string(name) + " must hold rows below " + std::to_string(limit) + ": " + std::to_string(row) +
                   " is out of range");
    }
    return argument;
}

// Which row of one table goes with which of another.
struct TokenArguments {
    Argument ids, places;

    TokenArguments(nb::handle ids_, std::size_t words, nb::handle places_, std::size_t positions)
        : ids(rows_of(ids_, "ids", words)), places(rows_of(places_, "places", positions)) {
        if (places.items != ids.items)
            reject("places must have one value for each of the " + std::to_string(ids.items) + " tokens, not " +
                   std::to_string(places.items));
    }
    Tokens view() const { return {ids.integers(), places.integers(), ids.items}; }
};

std::tuple<nb::object, nb::object> embed(nb::handle words_, nb::handle positions_, nb::handle ids_, nb::handle places_,
                                         nb::handle weight_, nb::handle bias_, float epsilon,
                                         const std::optional<std::string> &instruction_set) {
    const Argument words = float_array(words_, "words", 2), positions = float_array(positions_, "positions", 2);
    const std::size_t channels = words.size(1);
    if (channels == 0) reject("words must have at least one channel");
    if (positions.size(1) != channels)
        reject("positions must have " + std::to_string(channels) + " channels, not " +
               std::to_string(positions.size(1)));
    const TokenArguments given(ids_, words.size(0), places_, positions.size(0));
    const Tokens tokens = given.view();
    const Argument weight = float_array(weight_, "weight", 1), bias = float_array(bias_, "bias", 1);
    check_channels(weight, "weight", channels);
    check_channels(bias, "bias", channels);
    if (!(epsilon >= 0)) reject("epsilon must be a number and not negative");
    const InstructionSet &set = instruction_set_named(instruction_set);
    const Result states = result(nb::none(), {tokens.count, channels}), factors = result(nb::none(), {tokens.count});
    {
        const nb::gil_scoped_release released;
        embed_tokens(set, words.floats(), positions.floats(), tokens,
                     {nullptr, nullptr, weight.floats(), bias.floats(), epsilon, tokens.count, channels, states.data,
                      factors.data});
    }
    return {states.object, factors.object};
}

nb::object look_up(const LookupTable &table, nb::handle added_, nb::handle ids_, nb::handle places_,
                   nb::handle factors_, nb::handle bias_, const std::optional<std::string> &instruction_set) {
    const Argument added = float_array(added_, "added", 2);
    if (added.size(1) != table.width)
        reject("added must have " + std::to_string(table.width) + " channels, not " + std::to_string(added.size(1)));
    const TokenArguments given(ids_, table.rows, places_, added.size(0));
    const Tokens tokens = given.view();
    const Argument factors = shaped_array(factors_, "factors", {tokens.count}), bias = float_array(bias_, "bias", 1);
    check_channels(bias, "bias", table.width);
    const InstructionSet &set = instruction_set_named(instruction_set);
    const Result y = result(nb::none(), {tokens.count, table.width});
    {
        const nb::gil_scoped_release released;
        set.look_up({table.data.get(), table.rounded, added.floats(), tokens.ids, tokens.places,
                     factors.floats(), bias.floats(), tokens.count, table.width, y.data});
    }
    return y.object;
}

}  // namespace

void bind_embedding(nb::module_ &m) {
    using namespace nb::literals;

    nb::class_<LookupTable>(m, "LookupTable")
        .def("__init__",
             [](LookupTable *self, std::size_t rows, std::size_t width, const std::string &datatype) {
                 new (self) LookupTable(new_table(rows, width, datatype));
             },
             "rows"_a, "width"_a, "datatype"_a = "fp32")
        .def_prop_ro("rows", [](const LookupTable &t) { return t.rows; })
        .def_prop_ro("width", [](const LookupTable &t) { return t.width; })
        .def_prop_ro("datatype", [](const LookupTable &t) { return t.rounded ? "bf16" : "fp32"; })
        .def_prop_ro("nbytes", [](const LookupTable &t) { return t.bytes(); })
        .def("fill", &fill, "first"_a, "values"_a.none());
    m.def("embed", &embed, "words"_a.none(), "positions"_a.none(), "ids"_a.none(), "places"_a.none(),
          "weight"_a.none(), "bias"_a.none(), "epsilon"_a, nb::kw_only(), "instruction_set"_a = nb::none());
    m.def("look_up", &look_up, "table"_a, "added"_a.none(), "ids"_a.none(), "places"_a.none(), "factors"_a.none(),
          "bias"_a.none(), nb::kw_only(), "instruction_set"_a = nb::none());
}

}  // namespace sluice
