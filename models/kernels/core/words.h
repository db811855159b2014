// The gate on the words of a vocabulary.
#pragma once

#include "rows.h"

namespace sluice {

// The logits of the words that may be next, and their ids, ascending; both have room for all. `seen` is what the preview
// reads of the state [words.inputs]; possible [outputs] is added to all logits. Words are active whose preview is within
// the margin of the greatest; where that are more than `most`, those of them alone whose preview is as great as that of
// the last one among so many. The preview lies by input, words by output. Returns how many there are.
std::size_t likely_words(const RowWeights &preview, const float *seen, const RowWeights &words, const float *state,
                         const float *possible, float margin, std::size_t most, std::int32_t *ids, float *logits);

}  // namespace sluice
