#include "feed_forward.h"

#include <algorithm>

#include "norm_argument.h"

namespace sluice {
namespace {

// Rows whose neurons are made and summed before those of others: so many stay in the second cache.
constexpr std::size_t kRowsTogether = 288;

// With fewer, threads share the outputs of each product and not the rows.
constexpr std::size_t kSharedRows = 64;

bool is_bf16(const PackedMatrix &packed) { return packed.reduced && packed.reduced->datatype == Datatype::bf16; }

void in_two_calls(const PackedMatrix &up, const PackedMatrix &down, const InputRows &x, Channels neurons, const Epilogue &first,
                  Epilogue second, float *out, Threads *threads) {
    thread_local FloatBuffer kept;
    float *values = kept.reserve(std::min(kRowsTogether, x.count) * neurons.count);
    for (std::size_t row = 0; row < x.count; row += kRowsTogether, out += kRowsTogether * down.outputs) {
        const std::size_t count = std::min(kRowsTogether, x.count - row);
        multiply_rows(up, x.part(row, count), {nullptr, up.inputs}, neurons, first, values, threads);
        multiply_rows(down, {values, count, neurons.count}, neurons, {nullptr, down.outputs}, second, out, threads);
        if (second.residual) second.residual += kRowsTogether * down.outputs;
    }
}

}  // namespace

void run_feed_forward(const PackedMatrix &up, const PackedMatrix &down, const InputRows &x, Channels neurons,
                      const Epilogue &first, const Epilogue &second, float *out, Threads *threads) {
    const bool shares_rows = !threads || threads->count() == 1 || x.count >= kSharedRows;
    if (is_bf16(up) && is_bf16(down) && shares_rows &&
        feed_forward_reduced(*up.reduced, *down.reduced, x, neurons, first, second, out, threads))
        return;
    const RowsForProduct normed(x, up.inputs, false);
    in_two_calls(up, down, normed.rows(), neurons, first, second, out, threads);
}

}  // namespace sluice
