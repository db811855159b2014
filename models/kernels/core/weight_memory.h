// Memory for packed weights. A request reads all of a model's weights once, from end to end, so the pages that they lie in
// are large where the system has such: with those of 4 KiB the processor looks up an address every 64 lines, and on a
// virtual machine each look-up is several reads of memory.
#pragma once

#include <cstddef>
#include <memory>

namespace sluice {

// What is read from end to end: the weights, or the parts of weights that are split (see split_product.h).
enum class Kept { weights, parts };

// So many bytes of zeros on a 64-byte boundary. Consecutive calls for the same get consecutive memory, whatever their
// size, so that small layers share a page.
std::shared_ptr<void> weight_memory(std::size_t bytes, Kept kept = Kept::weights);

// Gives what was freed of other memory back to the system, where the library keeps it for itself.
void release_memory();

}  // namespace sluice
