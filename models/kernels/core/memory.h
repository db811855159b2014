#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

namespace sluice {

struct FreeAligned {
    void operator()(float *floats) const { ::operator delete(floats, std::align_val_t{64}); }
};

// Floats on a 64-byte boundary.
using AlignedFloats = std::unique_ptr<float[], FreeAligned>;

inline AlignedFloats zeroed_floats(std::size_t count) {
    const std::size_t bytes = count * sizeof(float);
    AlignedFloats floats(static_cast<float *>(::operator new(bytes, std::align_val_t{64})));
    std::memset(floats.get(), 0, bytes);
    return floats;
}

// Scratch that is kept between calls and only ever grows.
class Buffer {
public:
    float *reserve(std::size_t count) {
        if (count > capacity_) {
            floats_ = zeroed_floats(count);
            capacity_ = count;
        }
        return floats_.get();
    }

private:
    AlignedFloats floats_;
    std::size_t capacity_ = 0;
};

}  // namespace sluice
