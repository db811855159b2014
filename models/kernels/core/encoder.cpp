#include "encoder.h"

#include <algorithm>

#include "attention.h"
#include "feed_forward.h"

namespace sluice {
namespace {

const InstructionSet &set() { return **instruction_sets(); }

void multiply(const PackedMatrix &packed, const float *bias, const float *x, std::size_t rows, Channels inputs,
              Channels outputs, float *out, Threads *threads) {
    Epilogue epilogue;
    epilogue.shift = bias;
    multiply_rows(packed, {x, rows, inputs.count}, inputs, outputs, epilogue, out, threads);
}

// out = norm(out + x).
void add_and_norm(const NormBehind &norm, const float *x, std::size_t positions, std::size_t hidden, float *out) {
    set().normalise({out, x, norm.weight.floats(), norm.bias.floats(), norm.epsilon, positions, hidden, out});
}

// One to a thread, so that a warm call allocates nothing.
struct Workspace {
    FloatBuffer qkv, heads;
    std::vector<std::int32_t> columns;
};

Workspace &workspace() {
    thread_local Workspace kept;
    return kept;
}

// The columns of these heads in rows of queries, keys and values; the last value_size of each head are those of values.
Channels columns_of(const EncoderAttention &half, Channels heads) {
    const std::size_t value_size = half.hidden() / half.heads, scored = half.heads * half.head_size;
    std::vector<std::int32_t> &columns = workspace().columns;
    columns.clear();
    const auto list = [&](std::size_t begin, std::size_t size) {
        for (std::size_t i = 0; i < heads.count; ++i) {
            for (std::size_t c = 0; c < size; ++c)
                columns.push_back(static_cast<std::int32_t>(begin + heads[i] * size + c));
        }
    };
    list(0, half.head_size);
    list(scored, half.head_size);
    list(2 * scored, value_size);
    return {columns.data(), columns.size()};
}

void take(const float *values, std::size_t rows, std::size_t width, Channels columns, float *out) {
    for (std::size_t r = 0; r < rows; ++r) {
        const float *row = values + r * width;
        for (std::size_t c = 0; c < columns.count; ++c) *out++ = row[columns[c]];
    }
}

// mixed = attention of the heads that rows of `qkv` have: the queries of all of them, then their keys, then their values.
void mix(const EncoderAttention &half, const float *qkv, std::size_t positions, std::size_t heads, ScoreBias bias,
         float *mixed, Threads *threads) {
    const std::size_t value_size = half.hidden() / half.heads, scored = heads * half.head_size;
    const std::size_t columns = 2 * scored + heads * value_size;
    Attention attention{{qkv, positions, columns},
                        {qkv + scored, positions, columns},
                        {qkv + 2 * scored, positions, columns},
                        heads,
                        half.head_size,
                        value_size,
                        half.key_heads.data(),
                        bias.values,
                        half.scale,
                        false};
    attention.one_bias = bias.of_keys;
    attention.may_round = half.may_round;
    attend(set(), attention, mixed, threads);
}

// out = output(attention(qkv)) of the active heads alone.
void attend_with(const EncoderAttention &half, const float *x, std::size_t positions, const float *qkv, ScoreBias bias,
                 ActiveHeads heads, float *out, Threads *threads) {
    const std::size_t hidden = half.hidden(), count = heads.ids.count, values = count * (hidden / half.heads);
    if (count == 0) {
        for (std::size_t i = 0; i < positions; ++i) std::copy_n(heads.bias, hidden, out + i * hidden);
        return;
    }
    const Channels columns = columns_of(half, heads.ids);
    float *made = workspace().qkv.reserve(positions * columns.count);
    if (qkv) {
        take(qkv, positions, half.qkv.packed.outputs, columns, made);
    } else {
        const Channels all{nullptr, hidden};
        multiply(half.qkv.packed, half.qkv.bias.floats(), x, positions, all, columns, made, threads);
    }
    float *mixed = workspace().heads.reserve(positions * values);
    mix(half, made, positions, count, bias, mixed, threads);
    // The output's inputs are what the values' columns are less those before them.
    std::int32_t *inputs = workspace().columns.data() + columns.count - values;
    const auto first = static_cast<std::int32_t>(half.qkv.packed.outputs - hidden);
    std::for_each(inputs, inputs + values, [first](std::int32_t &id) { id -= first; });
    multiply(half.output.packed, heads.bias, mixed, positions, {inputs, values}, {nullptr, hidden}, out, threads);
}

}  // namespace

void attend_half(const EncoderAttention &half, const float *x, std::size_t positions, const float *qkv, ScoreBias bias,
                 ActiveHeads heads, float *out, Threads *threads) {
    const std::size_t hidden = half.hidden();
    const Channels all{nullptr, hidden};
    if (heads.bias) {
        attend_with(half, x, positions, qkv, bias, heads, out, threads);
    } else {
        if (!qkv) {
            const Channels columns{nullptr, half.qkv.packed.outputs};
            float *made = workspace().qkv.reserve(positions * columns.count);
            multiply(half.qkv.packed, half.qkv.bias.floats(), x, positions, all, columns, made, threads);
            qkv = made;
        }
        float *mixed = workspace().heads.reserve(positions * hidden);
        mix(half, qkv, positions, half.heads, bias, mixed, threads);
        multiply(half.output.packed, half.output.bias.floats(), mixed, positions, all, all, out, threads);
    }
    add_and_norm(half.norm, x, positions, hidden, out);
}

void feed_forward_half(const EncoderFeedForward &half, const float *x, std::size_t positions, float *out, Threads *threads) {
    const PackedMatrix &up = half.up.packed, &down = half.down.packed;
    Epilogue first, second;
    first.shift = half.up.bias.floats();
    first.activation = Activation::gelu;
    second.shift = half.down.bias.floats();
    run_feed_forward(up, down, {x, positions, up.inputs}, {nullptr, up.outputs}, first, second, out, threads);
    add_and_norm(half.norm, x, positions, half.hidden(), out);
}

}  // namespace sluice
