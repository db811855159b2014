// Attention, and the rotary embedding of its queries and keys.
#include <cmath>
#include <vector>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "arguments.h"
#include "attention.h"
#include "bindings.h"
#include "reduced_arguments.h"

namespace sluice {
namespace {

std::size_t heads_of(const Argument &array, const char *name, std::size_t head_size) {
    if (array.size(1) % head_size) {
        reject(std::string(name) + " must have whole heads of " + std::to_string(head_size) + " columns, not " +
               std::to_string(array.size(1)) + " columns");
    }
    return array.size(1) / head_size;
}

Argument bias_of(nb::handle value, std::size_t heads, std::size_t queries, std::size_t keys) {
    if (value.is_none()) return {};
    if (cpu_array(value, "bias", Items::float32).rank == 1) return shaped_array(value, "bias", {keys});
    return shaped_array(value, "bias", {heads, queries, keys});
}

nb::object attention(nb::handle q_, nb::handle k_, nb::handle v_, std::size_t head_size, nb::handle key_heads_,
                     nb::handle bias_, std::optional<float> scale, bool causal, const std::string &datatype,
                     nb::handle out, Threads *threads, const std::optional<std::string> &instruction_set) {
    const bool may_round = datatype_named(datatype) != Datatype::fp32;
    if (head_size == 0 || head_size > kMostChannels) reject("head_size must be at least 1 and at most 2^24");
    const Argument q = float_rows(q_, "q"), k = float_rows(k_, "k"), v = float_rows(v_, "v");
    const std::size_t heads = heads_of(q, "q", head_size), n_key_heads = heads_of(k, "k", head_size);
    const std::size_t queries = q.size(0), keys = k.size(0);
    if (v.size(0) != keys) reject("v must have as many rows as k");
    if (n_key_heads ? v.size(1) % n_key_heads != 0 || v.size(1) == 0 : v.size(1) != 0)
        reject("v must have the " + std::to_string(n_key_heads) + " heads of k");
    const std::size_t value_size = n_key_heads ? v.size(1) / n_key_heads : head_size;
    if (keys == 0) reject("k must have at least one row");
    if (causal && keys < queries) reject("k must have at least as many rows as q where attention is causal");
    if (scale && !std::isfinite(*scale)) reject("scale must be a number");
    Argument key_heads;
    std::vector<std::int32_t> shared;
    const std::int32_t *ids = nullptr;
    if (!key_heads_.is_none()) {
        key_heads = head_array(key_heads_, "key_heads", heads, n_key_heads);
        ids = key_heads.integers();
    } else {
        if (heads && (n_key_heads == 0 || heads % n_key_heads)) {
            reject("q must have a multiple of the " + std::to_string(n_key_heads) + " heads of k, not " +
                   std::to_string(heads) + ", where key_heads does not say which they read");
        }
        shared.resize(heads);
        for (std::size_t h = 0; h < heads; ++h) shared[h] = static_cast<std::int32_t>(h * n_key_heads / heads);
        ids = shared.data();
    }
    const Argument bias = bias_of(bias_, heads, queries, keys);
    const InstructionSet &set = instruction_set_named(instruction_set);
    const Result y = result(out, {queries, heads * value_size});
    y.check_apart(q, "q");
    y.check_apart(k, "k");
    y.check_apart(v, "v");
    y.check_apart(key_heads, "key_heads");
    y.check_apart(bias, "bias");
    {
        const nb::gil_scoped_release released;
        const float factor = scale ? *scale : 1.0f / std::sqrt(static_cast<float>(head_size));
        attend(set,
               {{q.floats(), queries, q.row_stride()},
                {k.floats(), keys, k.row_stride()},
                {v.floats(), keys, v.row_stride()},
                heads,
                head_size,
                value_size,
                ids,
                bias.is_valid() ? bias.floats() : nullptr,
                factor,
                causal,
               bias.is_valid() && bias.rank == 1,
               may_round},
               y.data,
               threads);
    }
    return y.object;
}

nb::object rotary(nb::handle x_, nb::handle cosines_, nb::handle sines_, nb::handle out,
                  const std::optional<std::string> &instruction_set) {
    const Argument x = float_rows(x_, "x"), cosines = float_array(cosines_, "cosines", 2);
    const std::size_t rows = x.size(0), columns = x.size(1), half = cosines.size(1);
    if (cosines.size(0) != rows || half == 0)
        reject("cosines must have one row for each of the " + std::to_string(rows) + " rows of x, and a column");
    const Argument sines = shaped_array(sines_, "sines", {rows, half});
    const std::size_t heads = heads_of(x, "x", 2 * half);
    const InstructionSet &set = instruction_set_named(instruction_set);
    const Result y = result_rows(out, rows, columns);
    if (y.data != x.floats() || y.stride != x.row_stride()) y.check_apart(x, "x");
    y.check_apart(cosines, "cosines");
    y.check_apart(sines, "sines");
    {
        const nb::gil_scoped_release released;
        set.rotate({x.floats(), x.row_stride(), rows, heads, half, cosines.floats(), sines.floats(), y.data, y.stride});
    }
    return y.object;
}

}  // namespace

void bind_attention(nb::module_ &m) {
    using namespace nb::literals;

    m.def("attention", &attention, "q"_a.none(), "k"_a.none(), "v"_a.none(), "head_size"_a, nb::kw_only(),
          "key_heads"_a = nb::none(), "bias"_a = nb::none(), "scale"_a = nb::none(), "causal"_a = false,
          "datatype"_a = "fp32", "out"_a = nb::none(), "threads"_a = nb::none(), "instruction_set"_a = nb::none());
    m.def("rotary", &rotary, "x"_a.none(), "cosines"_a.none(), "sines"_a.none(), nb::kw_only(), "out"_a = nb::none(),
          "instruction_set"_a = nb::none());
}

}  // namespace sluice
