// Memory for the arrays that Python gets. A run of a model makes the same arrays over and over: the blocks of those that
// are gone are kept for the next ones, so that a warm run allocates nothing and touches no new page.
#pragma once

#include <cstddef>

namespace sluice {

// At least so many bytes on a 64-byte boundary, whatever was left in them.
void *take_block(std::size_t bytes);

// Gives a block of take_block() back, to the thread that calls this: it keeps some and frees the rest.
void give_block(void *block) noexcept;

// Floats in such a block, for as long as this is there.
class BlockOfFloats {
public:
    explicit BlockOfFloats(std::size_t count) : floats_(static_cast<float *>(take_block(count * sizeof(float)))) {}
    ~BlockOfFloats() { give_block(floats_); }
    BlockOfFloats(const BlockOfFloats &) = delete;
    BlockOfFloats &operator=(const BlockOfFloats &) = delete;

    float *get() const { return floats_; }

private:
    float *floats_;
};

}  // namespace sluice
