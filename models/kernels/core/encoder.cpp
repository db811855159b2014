#include "encoder.h"

#include "attention.h"
#include "feed_forward.h"

namespace sluice {
namespace {

const InstructionSet &set() { return **instruction_sets(); }

void multiply(const BiasedProduct &product, const float *x, std::size_t rows, float *out, Threads *threads) {
    const PackedMatrix &packed = product.packed;
    Epilogue epilogue;
    epilogue.shift = product.bias.floats();
    multiply_rows(packed, {x, rows, packed.inputs}, {nullptr, packed.inputs}, {nullptr, packed.outputs}, epilogue, out,
                  threads);
}

// out = norm(out + x).
void add_and_norm(const NormBehind &norm, const float *x, std::size_t positions, std::size_t hidden, float *out) {
    set().normalise({out, x, norm.weight.floats(), norm.bias.floats(), norm.epsilon, positions, hidden, out});
}

// One to a thread, so that a warm call allocates nothing.
struct Workspace {
    FloatBuffer qkv, heads;
};

Workspace &workspace() {
    thread_local Workspace kept;
    return kept;
}

}  // namespace

void attend_half(const EncoderAttention &half, const float *x, std::size_t positions, const float *qkv, ScoreBias bias,
                 float *out, Threads *threads) {
    const std::size_t hidden = half.hidden(), scored = half.heads * half.head_size, columns = 2 * scored + hidden;
    if (!qkv) {
        float *made = workspace().qkv.reserve(positions * columns);
        multiply(half.qkv, x, positions, made, threads);
        qkv = made;
    }
    float *mixed = workspace().heads.reserve(positions * hidden);
    Attention attention{{qkv, positions, columns},
                        {qkv + scored, positions, columns},
                        {qkv + 2 * scored, positions, columns},
                        half.heads,
                        half.head_size,
                        hidden / half.heads,
                        half.key_heads.data(),
                        bias.values,
                        half.scale,
                        false};
    attention.one_bias = bias.of_keys;
    attention.may_round = half.may_round;
    attend(set(), attention, mixed, threads);
    multiply(half.output, mixed, positions, out, threads);
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
