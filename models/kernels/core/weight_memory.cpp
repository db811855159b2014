#include "weight_memory.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace sluice {
namespace {

constexpr std::size_t kLineBytes = 64, kSmallPage = 4096, kLargePage = std::size_t{2} << 20;

// Addresses that are handed out one after another; of most no memory is used before they are.
constexpr std::size_t kChunkBytes = 16 * kLargePage;

constexpr std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

#if defined(__linux__)

class Chunk {
public:
    explicit Chunk(std::size_t bytes) : mapped_(round_up(bytes, kLargePage) + kLargePage) {
        map_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map_ == MAP_FAILED) throw std::bad_alloc();
        const auto begin = reinterpret_cast<std::uintptr_t>(map_);
        next_ = static_cast<char *>(map_) + (round_up(begin, kLargePage) - begin);
        end_ = next_ + round_up(bytes, kLargePage);
        madvise(next_, static_cast<std::size_t>(end_ - next_), MADV_HUGEPAGE);  // small ones will do if it fails
    }
    ~Chunk() { munmap(map_, mapped_); }
    Chunk(const Chunk &) = delete;
    Chunk &operator=(const Chunk &) = delete;

    bool has(std::size_t bytes) const { return static_cast<std::size_t>(end_ - next_) >= bytes; }

    void *take(std::size_t bytes) {
        char *taken = next_;
        next_ += bytes;
        return taken;
    }

    // Gives what lies wholly within back to the system, while others still use the chunk.
    void give(void *memory, std::size_t bytes) const {
        const auto begin = reinterpret_cast<std::uintptr_t>(memory), first = round_up(begin, kSmallPage);
        const std::uintptr_t last = (begin + bytes) / kSmallPage * kSmallPage;
        if (first < last) madvise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED);
    }

private:
    std::size_t mapped_;
    void *map_;
    char *next_, *end_;
};

#endif

}  // namespace

std::shared_ptr<void> weight_memory(std::size_t bytes, [[maybe_unused]] Kept kept) {
    bytes = std::max(round_up(bytes, kLineBytes), kLineBytes);
#if defined(__linux__)
    static std::mutex mutex;
    static std::array<std::weak_ptr<Chunk>, 2> latest_of;
    const std::lock_guard<std::mutex> locked(mutex);
    std::weak_ptr<Chunk> &latest = latest_of[static_cast<std::size_t>(kept)];
    std::shared_ptr<Chunk> chunk = latest.lock();
    if (!chunk || !chunk->has(bytes)) {
        chunk = std::make_shared<Chunk>(std::max(bytes, kChunkBytes));
        latest = chunk;
    }
    return {chunk->take(bytes), [chunk, bytes](void *memory) { chunk->give(memory, bytes); }};
#else
    void *memory = ::operator new(bytes, std::align_val_t{kLineBytes});
    std::memset(memory, 0, bytes);
    return {memory, [](void *own) { ::operator delete(own, std::align_val_t{kLineBytes}); }};
#endif
}

void release_memory() {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

}  // namespace sluice
