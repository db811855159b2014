#include "blocks.h"

#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sluice {
namespace {

constexpr std::size_t kAlignment = 64;

// What a thread keeps: the arrays of a run of any model here, and not those of one huge request for ever.
constexpr std::size_t kMostBlocks = 64, kMostBytes = std::size_t{32} << 20;

// Lies before each block.
struct alignas(kAlignment) Header {
    std::size_t bytes;
};

// Rows of a large array lie in so many pages of 4 KiB that finding them takes time.
constexpr std::size_t kLargePage = std::size_t{2} << 20;

std::align_val_t alignment_of(std::size_t bytes) { return std::align_val_t{bytes < kLargePage ? kAlignment : kLargePage}; }

Header *reserve(std::size_t bytes) {
    auto *header = static_cast<Header *>(::operator new(bytes, alignment_of(bytes)));
#if defined(__linux__)
    // What lies beyond the last whole one stays in small pages; so does all if it fails.
    if (bytes >= kLargePage) madvise(header, bytes / kLargePage * kLargePage, MADV_HUGEPAGE);
#endif
    header->bytes = bytes;
    return header;
}

void release(Header *header) { ::operator delete(header, alignment_of(header->bytes)); }

struct Kept {
    Header *blocks[kMostBlocks];  // the oldest first
    std::size_t count = 0, bytes = 0;
    bool gone = false;

    Header *take(std::size_t i) {
        Header *header = blocks[i];
        bytes -= header->bytes;
        std::memmove(blocks + i, blocks + i + 1, (--count - i) * sizeof *blocks);
        return header;
    }

    ~Kept() {
        while (count) release(take(0));
        gone = true;  // what comes back later is freed
    }
};

Kept &kept() {
    thread_local Kept blocks;
    return blocks;
}

}  // namespace

void *take_block(std::size_t bytes) {
    Kept &own = kept();
    const std::size_t needed = sizeof(Header) + (bytes + kAlignment) / kAlignment * kAlignment;
    std::size_t best = own.count;
    for (std::size_t i = 0; i < own.count; ++i) {
        const std::size_t size = own.blocks[i]->bytes;
        // Not one of twice the size or more: a larger array may want that.
        if (size >= needed && size / 2 <= needed && (best == own.count || size < own.blocks[best]->bytes)) best = i;
    }
    if (best < own.count) return own.take(best) + 1;
    return reserve(needed) + 1;
}

void give_block(void *block) noexcept {
    Kept &own = kept();
    Header *header = static_cast<Header *>(block) - 1;
    if (own.gone || header->bytes > kMostBytes) return release(header);
    // Those of a model that runs no more must not keep out those of one that does.
    while (own.count == kMostBlocks || own.bytes + header->bytes > kMostBytes) release(own.take(0));
    own.blocks[own.count++] = header;
    own.bytes += header->bytes;
}

}  // namespace sluice
