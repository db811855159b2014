#include "arguments.h"

#include <algorithm>

#include "blocks.h"

namespace sluice {
namespace {

std::string shape_text(const std::size_t *shape, std::size_t rank) {
    std::string text = "[";
    for (std::size_t i = 0; i < rank; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

void check_shape(const Argument &array, const char *name, std::initializer_list<std::size_t> shape) {
    if (array.rank == shape.size() && std::equal(shape.begin(), shape.end(), array.shape)) return;
    reject(std::string(name) + " must have the shape " + shape_text(shape.begin(), shape.size()) + ", not " +
           shape_text(array.shape, std::min(array.rank, kMostRank)));
}

void check_rank(const Argument &array, const char *name, std::size_t rank) {
    if (array.rank == rank) return;
    reject(std::string(name) + " must have " + std::to_string(rank) + (rank == 1 ? " dimension" : " dimensions") +
           ", not " + std::to_string(array.rank));
}

// Whether ids ascend strictly from 0 or more to less than the limit. Most lists do: a loop without an exit is
// vectorised, and looking for the culprit can wait.
bool ascends(const std::int32_t *ids, std::size_t count, std::size_t limit) {
    if (count == 0) return true;
    if (ids[0] < 0 || static_cast<std::size_t>(ids[count - 1]) >= limit) return false;
    bool all = true;
    for (std::size_t i = 1; i < count; ++i) all &= ids[i - 1] < ids[i];
    return all;
}

[[noreturn]] void reject_ids(const std::int32_t *ids, std::size_t count, std::size_t limit, const char *name) {
    for (std::size_t i = 0; i < count; ++i) {
        if (ids[i] < 0 || static_cast<std::size_t>(ids[i]) >= limit) {
            reject(std::string(name) + " must hold channels from 0 to " + std::to_string(limit - 1) + ": " +
                   std::to_string(ids[i]) + " is out of range");
        }
        if (i && ids[i] <= ids[i - 1]) {
            reject(std::string(name) + " must be strictly ascending: " + std::to_string(ids[i]) + " follows " +
                   std::to_string(ids[i - 1]));
        }
    }
    reject(std::string(name) + " changed while they were read");
}

}  // namespace

Argument float_array(nb::handle value, const char *name, std::size_t rank) {
    Argument argument = cpu_array(value, name, Items::float32);
    check_rank(argument, name, rank);
    return argument;
}

Argument float_rows(nb::handle value, const char *name) {
    Argument argument = cpu_array(value, name, Items::float32, Layout::rows_apart);
    check_rank(argument, name, 2);
    return argument;
}

Argument overlapping_rows(nb::handle value, const char *name) {
    Argument argument = cpu_array(value, name, Items::float32, Layout::rows_anywhere);
    check_rank(argument, name, 2);
    return argument;
}

OptionalFloats optional_floats(nb::handle value, const char *name, std::size_t length, const char *what) {
    if (value.is_none()) return {};
    OptionalFloats floats{float_array(value, name, 1)};
    if (floats.argument.size(0) != length) {
        reject(std::string(name) + " must have one value for each of the " + std::to_string(length) + " " + what +
               ", not " + std::to_string(floats.argument.size(0)));
    }
    floats.data = floats.argument.floats();
    return floats;
}

void check_channels(const Argument &vector, const char *name, std::size_t channels) {
    if (vector.size(0) != channels) {
        reject(std::string(name) + " must have one value for each of the " + std::to_string(channels) +
               " channels, not " + std::to_string(vector.size(0)));
    }
}

Argument optional_array(nb::handle value, const char *name, std::initializer_list<std::size_t> shape) {
    return value.is_none() ? Argument{} : shaped_array(value, name, shape);
}

Argument shaped_array(nb::handle value, const char *name, std::initializer_list<std::size_t> shape) {
    Argument argument = cpu_array(value, name, Items::float32);
    check_shape(argument, name, shape);
    return argument;
}

ChannelList channel_list(nb::handle value, const char *name, std::size_t limit) {
    if (value.is_none()) return {{}, {nullptr, limit}};
    ChannelList list{cpu_array(value, name, Items::int32), {}};
    check_rank(list.argument, name, 1);
    const std::int32_t *ids = list.argument.integers();
    const std::size_t count = list.argument.size(0);
    if (!ascends(ids, count, limit)) reject_ids(ids, count, limit, name);
    // A list of all the channels says no more than no list, and costs less as none.
    list.channels = {count == limit ? nullptr : ids, count};
    return list;
}

Argument head_array(nb::handle value, const char *name, std::size_t count, std::size_t limit) {
    Argument argument = cpu_array(value, name, Items::int32);
    check_shape(argument, name, {count});
    const std::int32_t *ids = argument.integers();
    for (std::size_t i = 0; i < count; ++i) {
        if (ids[i] < 0 || static_cast<std::size_t>(ids[i]) >= limit) {
            reject(std::string(name) + " must hold heads from 0 to " +
                   std::to_string(static_cast<std::int64_t>(limit) - 1) + ": " + std::to_string(ids[i]) +
                   " is out of range");
        }
    }
    return argument;
}

Result result(nb::handle out, std::initializer_list<std::size_t> shape) {
    if (out.is_none()) {
        std::size_t size = 1;
        for (const std::size_t extent : shape) size *= extent;
        auto *floats = static_cast<float *>(take_block(size * sizeof(float)));
        nb::capsule owner(floats, give_block);
        return {array_over(floats, Items::float32, shape.size(), shape.begin(), std::move(owner)), floats, size};
    }
    const Argument array = cpu_array(out, "out", Items::float32, Layout::contiguous, Access::write);
    check_shape(array, "out", shape);
    return {nb::borrow(out), static_cast<float *>(array.data), array.items};
}

Result result_rows(nb::handle out, std::size_t rows, std::size_t columns) {
    if (out.is_none()) {
        Result made = result(out, {rows, columns});
        made.stride = columns;
        return made;
    }
    const Argument array = cpu_array(out, "out", Items::float32, Layout::rows_apart, Access::write);
    check_shape(array, "out", {rows, columns});
    const std::size_t stride = array.row_stride();
    return {nb::borrow(out), static_cast<float *>(array.data), array.items ? (rows - 1) * stride + columns : 0, stride};
}

void Result::check_apart(const Argument &argument, const char *name) const {
    if (!argument.is_valid()) return;
    // All of them have items of four bytes.
    const float *first = argument.floats();
    std::size_t extent = argument.items ? 1 : 0;
    for (std::size_t axis = 0; extent && axis < argument.rank; ++axis)
        extent += (argument.size(axis) - 1) * static_cast<std::size_t>(argument.strides[axis]);
    if (data < first + extent && first < data + size)
        reject(std::string("out must not overlap ") + name);
}

void Result::check_apart_or_same(const Argument &argument, const char *name) const {
    if (!argument.is_valid() || (argument.floats() == data && argument.items == size)) return;
    check_apart(argument, name);
}

Activation activation_named(const std::string &name) {
    if (name == "none") return Activation::none;
    if (name == "relu") return Activation::relu;
    if (name == "relu6") return Activation::relu6;
    if (name == "gelu") return Activation::gelu;
    if (name == "silu") return Activation::silu;
    reject("activation must be none, relu, relu6, gelu or silu, not '" + name + "'");
}

const InstructionSet &instruction_set_named(const std::optional<std::string> &name) {
    std::string known;
    for (auto set = instruction_sets(); *set; ++set) {
        if (!name || *name == (*set)->name) return **set;
        known += std::string(known.empty() ? "" : ", ") + (*set)->name;
    }
    reject("instruction_set must be one that this processor has (" + known + "), not '" + *name + "'");
}

const InstructionSet &without_split() {
    auto set = instruction_sets();
    while ((*set)->split) ++set;
    return **set;
}

}  // namespace sluice
