#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

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

// Floats that are kept between calls. What reserve() gives is at first zero, and later whatever was left there.
class FloatBuffer {
public:
    float *reserve(std::size_t count) {
        if (count > capacity_) {
            floats_ = zeroed_floats(count);
            capacity_ = count;
        }
        return floats_.get();
    }

    // What the latest reserve() has given, unless another has asked for more.
    float *data() const { return floats_.get(); }

private:
    AlignedFloats floats_;
    std::size_t capacity_ = 0;
};

// Up to 64 active outputs, `first` … `first + count` of the list.
struct Span {
    std::size_t first, count;
    bool in_place;  // they are all of a block, and its weights are used where they lie
};

// One to a thread, so that calls share nothing and, once warm, allocate nothing.
struct Scratch {
    FloatBuffer panel;                       // packed weights
    FloatBuffer sums;                        // of one panel, between tiles
    FloatBuffer padded;                      // an image with its border of zeros
    std::vector<const float *> activations;  // see Tile::activations
    std::vector<Span> spans;                 // of a product
    std::vector<std::int32_t> index;         // active inputs of a row of taps
    std::vector<std::int32_t> rows_of_block;  // those of all taps
    FloatBuffer split_activations, split_weights[2];  // see split.h
};

}  // namespace sluice
