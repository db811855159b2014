#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention.h"
#include "memory.h"

namespace sluice {
namespace {

// One to a thread, so that calls share nothing and, once warm, allocate nothing.
struct Workspace {
    FloatBuffer normed, picked, left, sums, qkv, attended, gate, neurons;
    std::vector<std::int32_t> ids, key_heads, taken;
    float care[kFewRows], limits[kFewRows];
};


Workspace &workspace() {
    thread_local Workspace kept;
    return kept;
}

struct Step {
    const Decoder &decoder;
    float *x;
    DecoderRow *rows;
    std::size_t count;
    Workspace &work;

    float *row(float *values, std::size_t r, std::size_t width) const { return values + r * width; }

    // y[r] = W · x[r] + bias (+ y[r] if it adds), over the inputs that are active for some row: those that are so for
    // this row less their means, and 0 for the others, whose part is from coarse weights where there are some.
    void gated(const RowWeights &w, std::size_t gate, const float *values, float *y, bool adds) const {
        for (std::size_t r = 0; r < count; ++r) work.limits[r] = threshold(r, gate);
        gated_by_limits(w, gate, values, y, adds);
    }

    // What a saliency must be above that is not multiplied by the row's care.
    float threshold(std::size_t r, std::size_t gate) const {
        const float own = rows[r].thresholds[gate];
        return gate + 1 < decoder.gates() ? own / work.care[r] : own;
    }

    void take_care(const DecoderLayer &layer, const float *normed) const {
        const std::size_t n = layer.care.size();
        decoder.head.floats->products(
            {normed, decoder.hidden(), count, layer.care.data(), n, 1, n, 1.0f, work.care, 1});
        for (std::size_t r = 0; r < count; ++r) work.care[r] = std::exp(work.care[r]);
    }

    void gated_by_limits(const RowWeights &w, std::size_t gate, const float *values, float *y, bool adds) const {
        const Channels active = select(w, gate, values);
        const float *picked[kFewRows];
        for (std::size_t r = 0; r < count; ++r)
            picked[r] = active.ids ? work.picked.reserve(0) + r * active.count : values + r * w.inputs;
        multiply(w, picked, active, y, adds);
        if (w.coarse) add_left(w, values, y);
    }

    static const float *data(const std::vector<float> &values) { return values.empty() ? nullptr : values.data(); }

    void multiply(const RowWeights &w, const float *const *values, Channels inputs, float *y, bool adds) const {
        const std::size_t padded = w.padded_outputs();
        float *sums = work.sums.reserve(count * padded);
        float *to[kFewRows];
        for (std::size_t r = 0; r < count; ++r) to[r] = row(sums, r, padded);
        sum_few(w, values, count, inputs, {nullptr, w.outputs}, to);
        for (std::size_t r = 0; r < count; ++r) {
            const float *shift = work.limits[r] > 0 && !w.folded.empty() ? w.folded.data() : data(w.bias);
            w.set->finish({to[r], data(w.scales), shift, row(y, r, w.outputs), w.outputs, adds});
        }
    }

    // y[r] += C · what is not active in a row with a limit.
    void add_left(const RowWeights &w, const float *values, float *y) const {
        const float *from[kFewRows];
        float *to[kFewRows], *left = work.left.reserve(count * w.inputs);
        std::size_t some = 0;
        for (std::size_t r = 0; r < count; ++r) {
            if (!(work.limits[r] > 0)) continue;
            float *own = row(left, some, w.inputs);
            w.set->leave(saliency(w, work.limits[r], values + r * w.inputs), own);
            from[some] = own;
            to[some++] = row(y, r, w.outputs);
        }
        if (some) add_coarse(*w.coarse, *w.set, from, some, to);
    }

    // Whether a row's active channels are so many that it is dense, as it is then made.
    bool made_dense(const CoarseWeights *coarse, std::size_t r, std::size_t gate, std::size_t n) const {
        if (!coarse || static_cast<std::size_t>(rows[r].active[gate]) * kShareBesideCoarse <= n) return false;
        rows[r].active[gate] = static_cast<std::int32_t>(n);
        work.limits[r] = 0;
        return true;
    }

    // The inputs of w that are active for some row, their values in work.picked [rows][active]; no ids where all rows
    // are dense.
    Channels select(const RowWeights &w, std::size_t gate, const float *values) const {
        const std::size_t n = w.inputs;
        bool dense = true;
        for (std::size_t r = 0; r < count; ++r) {
            rows[r].active[gate] = static_cast<std::int32_t>(n);
            dense = dense && !(work.limits[r] > 0);
        }
        if (dense) return {nullptr, n};
        if (count == 1) {
            const Channels active = choose(w, gate, saliency(w, work.limits[0], values));
            return made_dense(w.coarse.get(), 0, gate, n) ? Channels{nullptr, n} : active;
        }
        work.taken.assign(n + kListSlack, 0);
        bool some = false;
        for (std::size_t r = 0; r < count; ++r) some = take(w, gate, r, values + r * n) || some;
        if (!some) return {nullptr, n};
        const std::size_t found = list_taken(w, n);
        float *picked = work.picked.reserve(count * n + kListSlack);
        // A row may write over the start of the next one, which is written after it.
        for (std::size_t r = 0; r < count; ++r)
            w.set->pick(saliency(w, work.limits[r], values + r * n), work.taken.data(), picked + r * found);
        return {work.ids.data(), found};
    }

    // Takes the channels that are active in one row of several; whether those are not all.
    bool take(const RowWeights &w, std::size_t gate, std::size_t r, const float *values) const {
        const std::size_t n = w.inputs;
        if (work.limits[r] > 0) {
            const RowSaliency own = saliency(w, work.limits[r], values);
            rows[r].active[gate] = static_cast<std::int32_t>(w.set->mark(own, work.taken.data()));
            if (!made_dense(w.coarse.get(), r, gate, n)) return true;
        }
        std::fill_n(work.taken.begin(), n, -1);
        return false;
    }

    // The same of one row that is gated.
    Channels choose(const RowWeights &w, std::size_t gate, const RowSaliency &own) const {
        work.ids.resize(own.count + kListSlack);
        const std::size_t found = w.set->choose(own, work.ids.data(), work.picked.reserve(own.count + kListSlack));
        rows[0].active[gate] = static_cast<std::int32_t>(found);
        return {work.ids.data(), found};
    }

    // At a threshold of 0 all channels are active, as they are.
    static RowSaliency saliency(const RowWeights &w, float threshold, const float *values) {
        if (!(threshold > 0)) return {values, nullptr, w.norms.data(), -1.0f, w.inputs};
        return {values, data(w.means), w.norms.data(), threshold, w.inputs};
    }

    std::size_t list_taken(const RowWeights &w, std::size_t n) const {
        work.ids.resize(n + kListSlack);
        return w.set->list(work.taken.data(), n, work.ids.data());
    }

    const float *normalised(const std::vector<float> &weight) const {
        float *to = work.normed.reserve(count * decoder.hidden());
        decoder.head.floats->normalise({x, nullptr, weight.data(), nullptr, decoder.epsilon, count, decoder.hidden(), to});
        return to;
    }

    void attend_layer(std::size_t index) const {
        const DecoderLayer &layer = decoder.layers[index];
        const InstructionSet &set = *decoder.head.floats;
        const std::size_t depth = decoder.head_size, width = decoder.heads * depth, key_width = decoder.key_width();
        float *qkv = work.qkv.reserve(count * layer.qkv.outputs), *heads = work.attended.reserve(count * width);
        const float *normed = normalised(layer.attention_norm);
        take_care(layer, normed);
        gated(layer.qkv, kLayerGates * index, normed, qkv, false);
        for (std::size_t r = 0; r < count; ++r) {
            DecoderRow &own = rows[r];
            float *queries = row(qkv, r, layer.qkv.outputs), *new_keys = queries + width;
            float *keys = own.cache + 2 * index * own.capacity * key_width, *values = keys + own.capacity * key_width;
            float *key = keys + own.length * key_width;
            if (!layer.query_norm.empty()) {
                set.normalise({queries, nullptr, layer.query_norm.data(), nullptr, decoder.epsilon, decoder.heads, depth,
                               queries});
                set.normalise({new_keys, nullptr, layer.key_norm.data(), nullptr, decoder.epsilon, decoder.key_heads,
                               depth, new_keys});
            }
            set.rotate({queries, width, 1, decoder.heads, depth / 2, own.cosines, own.sines, queries, width});
            set.rotate({new_keys, key_width, 1, decoder.key_heads, depth / 2, own.cosines, own.sines, key, key_width});
            std::copy_n(new_keys + key_width, key_width, values + own.length * key_width);
            const std::size_t all = own.length + 1, seen = layer.window ? std::min(all, layer.window) : all;
            const std::size_t skipped = (all - seen) * key_width;
            const Attention attention{{queries, 1, width},
                                      {keys + skipped, seen, key_width},
                                      {values + skipped, seen, key_width},
                                      decoder.heads,
                                      depth,
                                      depth,
                                      work.key_heads.data(),
                                      nullptr,
                                      1.0f / std::sqrt(static_cast<float>(depth)),
                                      true};
            attend(set, attention, row(heads, r, width));
        }
        gated(layer.output, kLayerGates * index + 1, heads, x, true);
    }

    void feed_forward(std::size_t index) const {
        const DecoderLayer &layer = decoder.layers[index];
        const std::size_t neurons = layer.gate.outputs, gate = kLayerGates * index + 3;
        const float *normed = normalised(layer.norm);
        float *values = work.gate.reserve(count * neurons);
        gated(layer.gate, kLayerGates * index + 2, normed, values, false);
        layer.gate.set->silu(values, count * neurons);
        const Channels active = select_neurons(layer, gate, values);
        float *products = work.neurons.reserve(count * neurons);
        if (layer.up.coarse) {
            join_coarse(layer, normed, values, products);
        } else if (active.ids) {
            std::fill_n(products, count * neurons, 0.0f);
        }
        const float *inputs[kFewRows];
        float *sums = work.sums.reserve(count * active.count), *to[kFewRows];
        for (std::size_t r = 0; r < count; ++r) {
            inputs[r] = padded(normed, r, layer.up);
            to[r] = row(sums, r, active.count);
        }
        sum_few(layer.up, inputs, count, {nullptr, layer.up.inputs}, active, to);
        for (std::size_t r = 0; r < count; ++r) {
            const float limit = work.limits[r];
            layer.up.set->join({row(values, r, neurons), to[r], active.ids, data(layer.up.scales), data(layer.up.bias),
                                limit > 0 ? layer.neuron_norms.data() : nullptr, limit, active.count,
                                row(products, r, neurons), layer.up.coarse != nullptr});
        }
        down(layer, gate + 1, products);
    }

    // All neurons of the rows with a limit, by coarse weights.
    void join_coarse(const DecoderLayer &layer, const float *normed, const float *values, float *products) const {
        const RowWeights &w = layer.up;
        const std::size_t neurons = w.outputs;
        const float *from[kFewRows];
        float *to[kFewRows], *up = work.left.reserve(count * neurons);
        std::fill_n(up, count * neurons, 0.0f);
        std::size_t some = 0;
        for (std::size_t r = 0; r < count; ++r) {
            if (!(work.limits[r] > 0)) continue;
            from[some] = normed + r * w.inputs;
            to[some++] = row(up, r, neurons);
        }
        if (!some) return;
        add_coarse(*w.coarse, *w.set, from, some, to);
        for (std::size_t r = 0; r < count; ++r) {
            if (!(work.limits[r] > 0)) continue;
            w.set->join({values + r * neurons, row(up, r, neurons), nullptr, nullptr, data(w.bias), nullptr, 0.0f, neurons,
                         row(products, r, neurons), false});
        }
    }

    // x[r] += W · products[r], over those that are active for some row: above the threshold of their own gate, and not 0
    // where the one before left neurons out.
    void down(const DecoderLayer &layer, std::size_t gate, const float *products) const {
        for (std::size_t r = 0; r < count; ++r) {
            const bool skips = !layer.up.coarse && work.limits[r] > 0;
            work.limits[r] = std::max(threshold(r, gate), skips ? std::numeric_limits<float>::min() : 0.0f);
        }
        gated_by_limits(layer.down, gate, products, x, true);
    }

    // The head's inputs.
    const float *turned(const float *normed) const {
        const RowWeights &w = decoder.turn;
        if (!w.outputs) return normed;
        const float *inputs[kFewRows];
        float *all = work.qkv.reserve(count * w.outputs), *to[kFewRows];
        for (std::size_t r = 0; r < count; ++r) {
            inputs[r] = padded(normed, r, w);
            to[r] = row(all, r, w.outputs);
        }
        sum_few(w, inputs, count, {nullptr, w.inputs}, {nullptr, w.outputs}, to);
        return all;
    }

    // Of rows whose head was gated, the logits within the margin of the greatest, of all inputs.
    void compute_again(const float *normed, float *logits) const {
        const RowWeights &w = decoder.words;
        const std::size_t head = decoder.gates() - 1, n = w.outputs;
        float limits[kFewRows];
        bool any = false;
        for (std::size_t r = 0; r < count; ++r) {
            const float *own = row(logits, r, decoder.head.outputs);
            const bool gated = n && rows[r].thresholds[head] > 0;
            limits[r] = gated ? w.set->greatest(own, n) - decoder.margin : INFINITY;
            rows[r].active[head + 1] = 0;
            any = any || gated;
        }
        if (!any) return;
        work.taken.assign(n + kListSlack, 0);
        for (std::size_t r = 0; r < count; ++r) w.set->reach(row(logits, r, n), n, limits[r], work.taken.data());
        const std::size_t found = list_taken(w, n);
        const float *inputs[kFewRows];
        float *sums = work.sums.reserve(count * found), *to[kFewRows];
        for (std::size_t r = 0; r < count; ++r) {
            inputs[r] = padded(normed, r, w);
            to[r] = row(sums, r, found);
        }
        sum_few(w, inputs, count, {nullptr, w.inputs}, {work.ids.data(), found}, to);
        for (std::size_t r = 0; r < count; ++r) {
            float *own = row(logits, r, n);
            for (std::size_t i = 0; i < found; ++i) {
                const auto j = static_cast<std::size_t>(work.ids[i]);
                if (!(own[j] >= limits[r])) continue;
                own[j] = to[r][i] * (w.scales.empty() ? 1.0f : w.scales[j]) + (w.bias.empty() ? 0.0f : w.bias[j]);
                ++rows[r].active[head + 1];
            }
        }
    }

    // A row of values, of which the last group that the weights have is filled up with zeros.
    const float *padded(const float *values, std::size_t r, const RowWeights &w) const {
        const std::size_t width = w.groups * kGroup;
        if (width == w.inputs) return values + r * w.inputs;
        float *all = work.picked.reserve(count * width), *own = all + r * width;
        std::copy_n(values + r * w.inputs, w.inputs, own);
        std::fill(own + w.inputs, own + width, 0.0f);
        return own;
    }

    // The neurons that are active for some row, and in work.limits by which limit in each, 0: all of them.
    Channels select_neurons(const DecoderLayer &layer, std::size_t gate, const float *values) const {
        const std::size_t n = layer.gate.outputs;
        bool dense = layer.neuron_norms.empty();
        for (std::size_t r = 0; r < count; ++r) {
            rows[r].active[gate] = static_cast<std::int32_t>(n);
            work.limits[r] = layer.neuron_norms.empty() ? 0.0f : threshold(r, gate);
            dense = dense || !(work.limits[r] > 0);
        }
        if (layer.neuron_norms.empty()) return {nullptr, n};
        const CoarseWeights *coarse = layer.up.coarse.get();
        const auto own = [&](std::size_t r) {
            return RowSaliency{values + r * n, nullptr, layer.neuron_norms.data(), work.limits[r], n};
        };
        if (count == 1 && !dense) {
            const Channels active = choose(layer.gate, gate, own(0));
            return made_dense(coarse, 0, gate, n) ? Channels{nullptr, n} : active;
        }
        work.taken.assign(n + kListSlack, 0);
        for (std::size_t r = 0; r < count; ++r) {
            if (!(work.limits[r] > 0)) continue;
            rows[r].active[gate] = static_cast<std::int32_t>(layer.gate.set->mark(own(r), work.taken.data()));
            dense = made_dense(coarse, r, gate, n) || dense;
        }
        if (dense) return {nullptr, n};
        const std::size_t found = list_taken(layer.gate, n);
        return {work.ids.data(), found};
    }
};

}  // namespace

void decode(const Decoder &decoder, float *x, DecoderRow *rows, std::size_t count, float *logits) {
    Workspace &work = workspace();
    const std::size_t share = decoder.heads / decoder.key_heads;
    work.key_heads.resize(decoder.heads);
    for (std::size_t h = 0; h < decoder.heads; ++h) work.key_heads[h] = static_cast<std::int32_t>(h / share);
    for (std::size_t first = 0; first < count; first += kFewRows) {
        const Step step{decoder, x + first * decoder.hidden(), rows + first, std::min(kFewRows, count - first), work};
        for (std::size_t i = 0; i < decoder.layers.size(); ++i) {
            step.attend_layer(i);
            step.feed_forward(i);
        }
        const float *normed = step.normalised(decoder.norm);
        float *own = logits + first * decoder.head.outputs;
        step.gated(decoder.head, decoder.gates() - 1, step.turned(normed), own, false);
        step.compute_again(normed, own);
    }
}

}  // namespace sluice
