#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <limits>

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
        std::size_t all[kFewRows];
        for (std::size_t r = 0; r < count; ++r) all[r] = r;
        const float *from[kFewRows];
        if (!w.coarse) {
            const Channels active = select(w, gate, values);
            for (std::size_t r = 0; r < count; ++r)
                from[r] = active.ids ? work.picked.reserve(0) + r * active.count : values + r * w.inputs;
            return multiply(w, all, count, from, active, y, adds);
        }
        const auto own = [&](std::size_t r) { return saliency(w, work.limits[r], values + r * w.inputs); };
        each_part(w, gate, w.inputs, own, [&](const std::size_t *which, std::size_t some, Channels active) {
            for (std::size_t i = 0; i < some; ++i)
                from[i] = active.ids ? work.picked.reserve(0) : values + which[i] * w.inputs;
            multiply(w, which, some, from, active, y, adds);
        });
        add_left(w, values, y);
    }

    // Beside coarse weights: calls run(rows, their number, active channels) for each row with a limit alone, whose active
    // channels are few and of the others' no few, and at last for all others. A row of which too many are active becomes
    // one of those.
    template <typename Own, typename Run>
    void each_part(const RowWeights &w, std::size_t gate, std::size_t n, Own own, Run run) const {
        std::size_t dense[kFewRows], some = 0;
        for (std::size_t r = 0; r < count; ++r) {
            if (work.limits[r] > 0) {
                const Channels active = choose(w, gate, r, own(r));
                if (active.count * kShareBesideCoarse <= n) {
                    run(&r, std::size_t{1}, active);
                    continue;
                }
                work.limits[r] = 0;
            }
            rows[r].active[gate] = static_cast<std::int32_t>(n);
            dense[some++] = r;
        }
        if (some) run(dense, some, Channels{nullptr, n});
    }

    static const float *data(const std::vector<float> &values) { return values.empty() ? nullptr : values.data(); }

    // Some rows, which have the same inputs.
    void multiply(const RowWeights &w, const std::size_t *which, std::size_t some, const float *const *values,
                  Channels inputs, float *y, bool adds) const {
        const std::size_t padded = w.padded_outputs();
        float *sums = work.sums.reserve(some * padded), *to[kFewRows];
        for (std::size_t i = 0; i < some; ++i) to[i] = row(sums, i, padded);
        sum_few(w, values, some, inputs, {nullptr, w.outputs}, to);
        for (std::size_t i = 0; i < some; ++i) {
            const float *shift = work.limits[which[i]] > 0 && !w.folded.empty() ? w.folded.data() : data(w.bias);
            w.set->finish({to[i], data(w.scales), shift, row(y, which[i], w.outputs), w.outputs, adds});
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
        if (count == 1) return choose(w, gate, 0, saliency(w, work.limits[0], values));
        work.taken.assign(n + kListSlack, 0);
        for (std::size_t r = 0; r < count; ++r) {
            if (!(work.limits[r] > 0)) {
                std::fill_n(work.taken.begin(), n, -1);
                continue;
            }
            const RowSaliency own = saliency(w, work.limits[r], values + r * n);
            rows[r].active[gate] = static_cast<std::int32_t>(w.set->mark(own, work.taken.data()));
        }
        const std::size_t found = list_taken(w, n);
        float *picked = work.picked.reserve(count * n + kListSlack);
        // A row may write over the start of the next one, which is written after it.
        for (std::size_t r = 0; r < count; ++r)
            w.set->pick(saliency(w, work.limits[r], values + r * n), work.taken.data(), picked + r * found);
        return {work.ids.data(), found};
    }

    // The same of one row alone, which is gated.
    Channels choose(const RowWeights &w, std::size_t gate, std::size_t r, const RowSaliency &own) const {
        work.ids.resize(own.count + kListSlack);
        const std::size_t found = w.set->choose(own, work.ids.data(), work.picked.reserve(own.count + kListSlack));
        rows[r].active[gate] = static_cast<std::int32_t>(found);
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
            attend_row(attention, index, r, row(heads, r, width));
        }
        gated(layer.output, kLayerGates * index + 2, heads, x, true);
    }

    void attend_row(const Attention &attention, std::size_t index, std::size_t r, float *out) const {
        const InstructionSet &set = *decoder.head.floats;
        const std::size_t gate = kLayerGates * index + 1, groups = decoder.key_heads, share = decoder.heads / groups;
        DecoderRow &own = rows[r];
        const float limit = own.thresholds[gate];  // a share is what it is, whatever the token
        // A window that has left out the first keys has no far ones.
        const FarKeys far = attention.keys.rows == own.length + 1 ? far_keys(attention.keys.rows) : FarKeys{};
        std::int32_t &active = own.active[gate];
        active = static_cast<std::int32_t>(groups);
        if (!(limit > 0) || far.begin == far.end) return attend(set, attention, out);
        for (std::size_t group = 0; group < groups; ++group) {
            float &last = own.far_shares[index * groups + group];
            Attention part = attention.part(group * share, share, 0, 1);
            part.far = far;
            part.far.skipped = !(last > limit) && (own.length + index + group) % kLookAgain != 0;
            if (!part.far.skipped) {
                last = 0;
                part.far.share = &last;
            }
            active -= part.far.skipped;
            attend(set, part, attention.out_of(out, group * share, 0));
        }
    }

    void feed_forward(std::size_t index) const {
        const DecoderLayer &layer = decoder.layers[index];
        const std::size_t neurons = layer.gate.outputs, gate = kLayerGates * index + 4;
        const float *normed = normalised(layer.norm);
        float *values = work.gate.reserve(count * neurons);
        gated(layer.gate, kLayerGates * index + 3, normed, values, false);
        layer.gate.set->silu(values, count * neurons);
        float *products = work.neurons.reserve(count * neurons);
        if (layer.up.coarse && !layer.neuron_norms.empty()) {
            const auto own = [&](std::size_t r) { return neuron_saliency(layer, gate, r, values); };
            for (std::size_t r = 0; r < count; ++r) work.limits[r] = threshold(r, gate);
            each_part(layer.gate, gate, neurons, own, [&](const std::size_t *which, std::size_t some, Channels active) {
                join(layer, which, some, active, normed, values, products);
            });
            join_left(layer, normed, values, products);
        } else {
            std::size_t all[kFewRows];
            for (std::size_t r = 0; r < count; ++r) all[r] = r;
            const Channels active = select_neurons(layer, gate, values);
            if (active.ids) std::fill_n(products, count * neurons, 0.0f);
            join(layer, all, count, active, normed, values, products);
        }
        down(layer, gate + 1, products);
    }

    RowSaliency neuron_saliency(const DecoderLayer &layer, std::size_t gate, std::size_t r, const float *values) const {
        return {values + r * layer.gate.outputs, nullptr, layer.neuron_norms.data(), threshold(r, gate),
                layer.gate.outputs};
    }

    // The active neurons of some rows, by both halves.
    void join(const DecoderLayer &layer, const std::size_t *which, std::size_t some, Channels active, const float *normed,
              const float *values, float *products) const {
        const RowWeights &w = layer.up;
        const float *inputs[kFewRows];
        float *sums = work.sums.reserve(some * active.count), *to[kFewRows];
        for (std::size_t i = 0; i < some; ++i) {
            inputs[i] = padded(normed, which[i], w);
            to[i] = row(sums, i, active.count);
        }
        sum_few(w, inputs, some, {nullptr, w.inputs}, active, to);
        for (std::size_t i = 0; i < some; ++i) {
            const std::size_t r = which[i], at = r * w.outputs;
            const float limit = work.limits[r];
            w.set->join({values + at, to[i], active.ids, data(w.scales), data(w.bias),
                         limit > 0 ? layer.neuron_norms.data() : nullptr, limit, active.count, products + at, false});
        }
    }

    // The other neurons of the rows with a limit, by coarse weights.
    void join_left(const DecoderLayer &layer, const float *normed, const float *values, float *products) const {
        const RowWeights &w = layer.up;
        const float *from[kFewRows];
        float *to[kFewRows], *up = work.left.reserve(count * w.outputs);
        std::size_t which[kFewRows], some = 0;
        for (std::size_t r = 0; r < count; ++r) {
            if (!(work.limits[r] > 0)) continue;
            from[some] = normed + r * w.inputs;
            to[some] = row(up, some, w.outputs);
            std::fill_n(to[some], w.outputs, 0.0f);
            which[some++] = r;
        }
        if (!some) return;
        add_coarse(*w.coarse, *w.set, from, some, to);
        for (std::size_t i = 0; i < some; ++i) {
            const std::size_t at = which[i] * w.outputs;
            w.set->join({values + at, to[i], nullptr, nullptr, data(w.bias), layer.neuron_norms.data(),
                         work.limits[which[i]], w.outputs, products + at, true});
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

    // Half of the variance, over all words, of what the head's gate leaves out of a row's logits. That is about normal,
    // so it is the logarithm of what their probabilities are larger by on average than without it.
    float half_variance(std::size_t r, const float *values) const {
        const RowWeights &w = decoder.head;
        const RowSaliency own = saliency(w, threshold(r, decoder.gates() - 1), values + r * w.inputs);
        float sum = 0;
        for (std::size_t k = 0; k < own.count; ++k) {
            const float left = std::abs(own.x[k] - (own.means ? own.means[k] : 0.0f)) * own.norms[k];
            if (left <= own.threshold) sum += left * left;
        }
        return sum / static_cast<float>(2 * w.outputs);
    }

    // Of rows whose head was gated, the logits within the margin of the greatest, of all inputs; all others are made
    // larger by what these are. `values` are the head's inputs.
    void compute_again(const float *normed, const float *values, float *logits) const {
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
            if (!(rows[r].thresholds[head] > 0)) continue;
            float *own = row(logits, r, n);
            const float added = half_variance(r, values);
            for (std::size_t i = 0; i < found; ++i) {
                const auto j = static_cast<std::size_t>(work.ids[i]);
                if (!(own[j] >= limits[r])) continue;
                const float exact = to[r][i] * (w.scales.empty() ? 1.0f : w.scales[j]) + (w.bias.empty() ? 0.0f : w.bias[j]);
                own[j] = exact - added;
                ++rows[r].active[head + 1];
            }
            std::transform(own, own + n, own, [added](float value) { return value + added; });
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
        if (count == 1 && !dense) return choose(layer.gate, gate, 0, neuron_saliency(layer, gate, 0, values));
        work.taken.assign(n + kListSlack, 0);
        for (std::size_t r = 0; r < count; ++r) {
            if (!(work.limits[r] > 0)) continue;
            const RowSaliency own = neuron_saliency(layer, gate, r, values);
            rows[r].active[gate] = static_cast<std::int32_t>(layer.gate.set->mark(own, work.taken.data()));
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
        const float *values = step.turned(normed);
        step.gated(decoder.head, decoder.gates() - 1, values, own, false);
        step.compute_again(normed, values, own);
    }
}

}  // namespace sluice
