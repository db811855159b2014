// Checks of what Python passes. Every function raises a TypeError (what it is) or a ValueError (what it holds) that
// names the argument.
#pragma once

#include <initializer_list>
#include <optional>
#include <type_traits>

#include "arrays.h"
#include "blocks.h"
#include "product.h"

namespace sluice {

// The most channels that a layer may have: far from where sizes would wrap around.
constexpr std::size_t kMostChannels = 1u << 24;

// A C-contiguous float32 array of the given rank.
Argument float_array(nb::handle value, const char *name, std::size_t rank);

// The same of rank 2, whose rows may lie apart: a slice of the columns of another array.
Argument float_rows(nb::handle value, const char *name);

// The same, whose rows may also lie over each other: what is only read.
Argument overlapping_rows(nb::handle value, const char *name);

// The same with an exact length, or none at all.
struct OptionalFloats {
    Argument argument;
    const float *data = nullptr;
};
OptionalFloats optional_floats(nb::handle value, const char *name, std::size_t length, const char *what);

// Raises a ValueError unless a vector has one value for each of so many channels.
void check_channels(const Argument &vector, const char *name, std::size_t channels);

// The same with an exact shape; optional: or none at all.
Argument shaped_array(nb::handle value, const char *name, std::initializer_list<std::size_t> shape);
Argument optional_array(nb::handle value, const char *name, std::initializer_list<std::size_t> shape);

// None (all of them) or an int32 array, strictly ascending and within 0 … limit − 1.
struct ChannelList {
    Argument argument;
    Channels channels;
};
ChannelList channel_list(nb::handle value, const char *name, std::size_t limit);

// An int32 array of `count` heads from 0 … limit − 1 in any order.
Argument head_array(nb::handle value, const char *name, std::size_t count, std::size_t limit);

// The result: a new numpy array, or `out` after its type and shape have been checked.
struct Result {
    nb::object object;
    float *data;
    std::size_t size;        // floats from the first to the last
    std::size_t stride = 0;  // floats from one row to the next; of result_rows()
    // Raises a ValueError where the result lies over an argument, which may be none.
    void check_apart(const Argument &argument, const char *name) const;
    // The same, but it may be that argument.
    void check_apart_or_same(const Argument &argument, const char *name) const;
};
Result result(nb::handle out, std::initializer_list<std::size_t> shape);

// The same of rank 2, where the rows of `out` may lie apart.
Result result_rows(nb::handle out, std::size_t rows, std::size_t columns);

// A new vector of which only the beginning may be used.
template <typename Item>
struct NewVector {
    Item *items;
    nb::capsule owner;

    explicit NewVector(std::size_t most)
        : items(static_cast<Item *>(take_block(most * sizeof(Item)))), owner(items, give_block) {}
    nb::object array(std::size_t count) const {
        constexpr Items kItems = std::is_same_v<Item, float> ? Items::float32 : Items::int32;
        return array_over(items, kItems, 1, &count, owner);
    }
};

Activation activation_named(const std::string &name);

// The named instruction set, or the best one for None.
const InstructionSet &instruction_set_named(const std::optional<std::string> &name);

// The best one without `split`.
const InstructionSet &without_split();

}  // namespace sluice
