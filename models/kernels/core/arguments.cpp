#include "arguments.h"

#include "blocks.h"

#include <nanobind/stl/string.h>

namespace sluice {
namespace {

[[noreturn]] void type_error(const std::string &message) { throw nb::type_error(message.c_str()); }

std::string shape_text(const std::size_t *shape, std::size_t rank) {
    std::string text = "[";
    for (std::size_t i = 0; i < rank; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

template <typename Array>
void check_shape(const Array &array, const char *name, std::initializer_list<std::size_t> shape) {
    bool fits = array.ndim() == shape.size();
    for (std::size_t axis = 0; fits && axis < shape.size(); ++axis) fits = array.shape(axis) == shape.begin()[axis];
    if (fits) return;
    std::size_t given[8] = {};
    const std::size_t rank = array.ndim() < 8 ? array.ndim() : 8;
    for (std::size_t axis = 0; axis < rank; ++axis) given[axis] = array.shape(axis);
    reject(std::string(name) + " must have the shape " + shape_text(shape.begin(), shape.size()) + ", not " +
           shape_text(given, rank));
}

std::string type_text(nb::handle value) { return nb::cast<std::string>(value.type().attr("__name__")); }

enum class Layout { contiguous, rows_apart };

template <typename... Options>
nb::ndarray<Options...> cpu_array(nb::handle value, const char *name, nb::dlpack::dtype type, const char *type_name,
                                  Layout layout = Layout::contiguous) {
    nb::ndarray<Options...> array;
    if (!nb::try_cast(value, array, false)) {
        nb::ndarray<nb::ro> readable;
        if (sizeof...(Options) == 0 && nb::try_cast(value, readable, false))
            reject(std::string(name) + " must be writable");
        type_error(std::string(name) + " must be " + (type_name[0] == 'i' ? "an " : "a ") + type_name + " array, not " +
                   type_text(value));
    }
    if (array.device_type() != nb::device::cpu::value) type_error(std::string(name) + " must be in the CPU's memory");
    if (array.dtype() != type) {
        const char *kinds[] = {"int", "uint", "float"};
        const auto given = array.dtype();
        const std::string kind = given.code < 3 ? kinds[given.code] + std::to_string(given.bits) : "another type";
        type_error(std::string(name) + " must be " + type_name + ", not " + kind);
    }
    if (reinterpret_cast<std::uintptr_t>(array.data()) % sizeof(float))
        reject(std::string(name) + " must be aligned to its items");
    std::int64_t stride = 1;
    for (std::size_t axis = array.ndim(); axis-- > 0;) {
        if (array.shape(axis) > 1 && array.size() > 0 && array.stride(axis) != stride) {
            if (layout == Layout::contiguous) reject(std::string(name) + " must be C-contiguous");
            if (axis > 0 || array.stride(axis) < stride)
                reject(std::string(name) + " must have contiguous rows that do not overlap");
        }
        stride *= static_cast<std::int64_t>(array.shape(axis));
    }
    return array;
}

}  // namespace

void reject(const std::string &message) { throw nb::value_error(message.c_str()); }

Argument float_array(nb::handle value, const char *name, std::size_t rank) {
    Argument argument{cpu_array<nb::ro>(value, name, nb::dtype<float>(), "float32")};
    if (argument.array.ndim() != rank) {
        reject(std::string(name) + " must have " + std::to_string(rank) + " dimensions, not " +
                    std::to_string(argument.array.ndim()));
    }
    return argument;
}

Argument float_rows(nb::handle value, const char *name) {
    Argument argument{cpu_array<nb::ro>(value, name, nb::dtype<float>(), "float32", Layout::rows_apart)};
    if (argument.array.ndim() != 2)
        reject(std::string(name) + " must have 2 dimensions, not " + std::to_string(argument.array.ndim()));
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
    Argument argument{cpu_array<nb::ro>(value, name, nb::dtype<float>(), "float32")};
    check_shape(argument.array, name, shape);
    return argument;
}

ChannelList channel_list(nb::handle value, const char *name, std::size_t limit) {
    if (value.is_none()) return {{}, {nullptr, limit}};
    ChannelList list{{cpu_array<nb::ro>(value, name, nb::dtype<std::int32_t>(), "int32")}, {}};
    if (list.argument.array.ndim() != 1) {
        reject(std::string(name) + " must have 1 dimension, not " + std::to_string(list.argument.array.ndim()));
    }
    const auto *ids = static_cast<const std::int32_t *>(list.argument.array.data());
    const std::size_t count = list.argument.size(0);
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
    // A list of all the channels says no more than no list, and costs less as none.
    list.channels = {count == limit ? nullptr : ids, count};
    return list;
}

Argument head_array(nb::handle value, const char *name, std::size_t count, std::size_t limit) {
    Argument argument{cpu_array<nb::ro>(value, name, nb::dtype<std::int32_t>(), "int32")};
    check_shape(argument.array, name, {count});
    const auto *ids = static_cast<const std::int32_t *>(argument.array.data());
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
        const nb::capsule owner(floats, give_block);
        return {nb::cast(nb::ndarray<nb::numpy, float>(floats, shape.size(), shape.begin(), owner)), floats, size};
    }
    const auto array = cpu_array<>(out, "out", nb::dtype<float>(), "float32");
    check_shape(array, "out", shape);
    return {nb::borrow(out), static_cast<float *>(array.data()), array.size()};
}

Result result_rows(nb::handle out, std::size_t rows, std::size_t columns) {
    if (out.is_none()) {
        Result made = result(out, {rows, columns});
        made.stride = columns;
        return made;
    }
    const auto array = cpu_array<>(out, "out", nb::dtype<float>(), "float32", Layout::rows_apart);
    check_shape(array, "out", {rows, columns});
    const std::size_t stride = rows > 1 ? static_cast<std::size_t>(array.stride(0)) : columns;
    return {nb::borrow(out), static_cast<float *>(array.data()), array.size() ? (rows - 1) * stride + columns : 0, stride};
}

void Result::check_apart(const Argument &argument, const char *name) const {
    if (!argument.array.is_valid()) return;
    // All of them have items of four bytes.
    const float *first = argument.floats();
    std::size_t extent = argument.array.size() ? 1 : 0;
    for (std::size_t axis = 0; extent && axis < argument.array.ndim(); ++axis)
        extent += (argument.size(axis) - 1) * static_cast<std::size_t>(argument.array.stride(axis));
    if (data < first + extent && first < data + size)
        reject(std::string("out must not overlap ") + name);
}

void Result::check_apart_or_same(const Argument &argument, const char *name) const {
    if (!argument.array.is_valid() || (argument.floats() == data && argument.array.size() == size)) return;
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

}  // namespace sluice
