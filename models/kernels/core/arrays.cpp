#include "arrays.h"

#include <algorithm>

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#include <numpy/arrayobject.h>

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

namespace sluice {
namespace {

constexpr std::size_t kItemBytes = 4;

[[noreturn]] void type_error(const std::string &message) { throw nb::type_error(message.c_str()); }

const char *name_of(Items items) { return items == Items::float32 ? "float32" : "int32"; }

// `kind` is that of the items which the array has, or empty.
[[noreturn]] void reject_items(const char *name, Items items, const char *kind, std::size_t bits) {
    type_error(std::string(name) + " must be " + name_of(items) + ", not " +
               (*kind ? kind + std::to_string(bits) : "another type"));
}

// Reading it takes a few nanoseconds, where the way over DLPack takes as long as a small product.
Argument numpy_array(nb::handle value, const char *name, Items items, Access access) {
    auto *array = reinterpret_cast<PyArrayObject *>(value.ptr());
    const char kind = PyArray_DESCR(array)->kind, wanted = items == Items::float32 ? 'f' : 'i';
    const auto bytes = static_cast<std::size_t>(PyArray_ITEMSIZE(array));
    const bool swapped = !PyArray_ISNOTSWAPPED(array);
    if (kind != wanted || bytes != kItemBytes || swapped) {
        const char *known = kind == 'f' ? "float" : kind == 'i' ? "int" : kind == 'u' ? "uint" : "";
        reject_items(name, items, swapped ? "" : known, 8 * bytes);
    }
    if (access == Access::write && !PyArray_ISWRITEABLE(array)) reject(std::string(name) + " must be writable");
    Argument argument;
    argument.owner = nb::borrow(value);
    argument.data = PyArray_DATA(array);
    argument.rank = static_cast<std::size_t>(PyArray_NDIM(array));
    argument.items = static_cast<std::size_t>(PyArray_SIZE(array));
    for (std::size_t axis = 0; axis < std::min(argument.rank, kMostRank); ++axis) {
        const npy_intp stride = PyArray_STRIDES(array)[axis], item = kItemBytes;
        argument.shape[axis] = static_cast<std::size_t>(PyArray_DIMS(array)[axis]);
        argument.strides[axis] = stride / item;
        if (argument.shape[axis] > 1 && stride % item) reject(std::string(name) + " must be aligned to its items");
    }
    return argument;
}

template <typename Array>
Argument dlpack_array(Array array, const char *name, Items items) {
    if (array.device_type() != nb::device::cpu::value) type_error(std::string(name) + " must be in the CPU's memory");
    const nb::dlpack::dtype given = array.dtype();
    if (given != (items == Items::float32 ? nb::dtype<float>() : nb::dtype<std::int32_t>())) {
        const char *kinds[] = {"int", "uint", "float"};
        reject_items(name, items, given.code < 3 ? kinds[given.code] : "", given.bits);
    }
    Argument argument;
    argument.data = const_cast<void *>(static_cast<const void *>(array.data()));
    argument.rank = array.ndim();
    argument.items = array.size();
    for (std::size_t axis = 0; axis < std::min(argument.rank, kMostRank); ++axis) {
        argument.shape[axis] = array.shape(axis);
        argument.strides[axis] = static_cast<std::ptrdiff_t>(array.stride(axis));
    }
    auto *kept = new Array(std::move(array));
    argument.owner = nb::capsule(kept, [](void *own) noexcept { delete static_cast<Array *>(own); });
    return argument;
}

Argument other_array(nb::handle value, const char *name, Items items, Access access) {
    nb::ndarray<nb::ro> readable;
    nb::ndarray<> writable;
    if (access == Access::write) {
        if (nb::try_cast(value, writable, false)) return dlpack_array(std::move(writable), name, items);
        if (nb::try_cast(value, readable, false)) reject(std::string(name) + " must be writable");
    } else if (nb::try_cast(value, readable, false)) {
        return dlpack_array(std::move(readable), name, items);
    }
    type_error(std::string(name) + " must be " + (items == Items::int32 ? "an " : "a ") + name_of(items) +
               " array, not " + nb::cast<std::string>(value.type().attr("__name__")));
}

}  // namespace

void reject(const std::string &message) { throw nb::value_error(message.c_str()); }

Argument cpu_array(nb::handle value, const char *name, Items items, Layout layout, Access access) {
    Argument argument = PyArray_Check(value.ptr()) ? numpy_array(value, name, items, access)
                                                   : other_array(value, name, items, access);
    if (reinterpret_cast<std::uintptr_t>(argument.data) % kItemBytes)
        reject(std::string(name) + " must be aligned to its items");
    std::ptrdiff_t stride = 1;
    for (std::size_t axis = std::min(argument.rank, kMostRank); axis-- > 0;) {
        if (argument.shape[axis] > 1 && argument.items > 0 && argument.strides[axis] != stride) {
            if (layout == Layout::contiguous) reject(std::string(name) + " must be C-contiguous");
            if (layout == Layout::rows_anywhere) {
                if (axis > 0 || argument.strides[axis] < 0) reject(std::string(name) + " must have contiguous rows");
            } else if (axis > 0 || argument.strides[axis] < stride)
                reject(std::string(name) + " must have contiguous rows that do not overlap");
        }
        stride *= static_cast<std::ptrdiff_t>(argument.shape[axis]);
    }
    return argument;
}

nb::object array_over(void *data, Items items, std::size_t rank, const std::size_t *shape, nb::object owner) {
    npy_intp extents[kMostRank];
    for (std::size_t axis = 0; axis < rank; ++axis) extents[axis] = static_cast<npy_intp>(shape[axis]);
    PyObject *array = PyArray_New(&PyArray_Type, static_cast<int>(rank), extents,
                                  items == Items::float32 ? NPY_FLOAT32 : NPY_INT32, nullptr, data, 0,
                                  NPY_ARRAY_CARRAY, nullptr);
    if (!array) throw nb::python_error();
    nb::object made = nb::steal(array);
    if (PyArray_SetBaseObject(reinterpret_cast<PyArrayObject *>(array), owner.release().ptr()) < 0)
        throw nb::python_error();
    return made;
}

void import_numpy() {
    if (PyArray_ImportNumPyAPI() < 0) throw nb::python_error();
}

}  // namespace sluice
