// Arrays as Python passes and gets them: numpy's by its own functions, others by way of DLPack.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace sluice {

namespace nb = nanobind;

constexpr std::size_t kMostRank = 8;

[[noreturn]] void reject(const std::string &message);  // a ValueError

// An array in the CPU's memory whose items have four bytes; it keeps its owner alive. Of a higher rank than kMostRank it
// knows no more than that.
struct Argument {
    nb::object owner;  // null: none
    void *data = nullptr;
    std::size_t rank = 0, items = 0;
    std::size_t shape[kMostRank];
    std::ptrdiff_t strides[kMostRank];  // in items

    bool is_valid() const { return owner.is_valid(); }
    const float *floats() const { return static_cast<const float *>(data); }
    const std::int32_t *integers() const { return static_cast<const std::int32_t *>(data); }
    std::size_t size(std::size_t axis) const { return shape[axis]; }
    std::size_t row_stride() const { return shape[0] > 1 ? static_cast<std::size_t>(strides[0]) : shape[1]; }
};

enum class Items { float32, int32 };
enum class Layout { contiguous, rows_apart, rows_anywhere };
enum class Access { read, write };

// The array that a value is. Raises a TypeError or a ValueError with the name for anything but one of these items and
// this layout.
Argument cpu_array(nb::handle value, const char *name, Items items, Layout layout = Layout::contiguous,
                   Access access = Access::read);

// A new numpy array over memory that `owner` keeps.
nb::object array_over(void *data, Items items, std::size_t rank, const std::size_t *shape, nb::object owner);

// To be called once, before any other.
void import_numpy();

}  // namespace sluice
