// Loops over whole rows: norms, softmax and the dot products of attention, rotary embedding, measured saliency.
#pragma once

#include "instruction_set.h"
#include "vector.h"

namespace sluice {
namespace {

// The sum of value(c), vectors of the channels from c on, and of last(c), single ones, over n channels.
template <typename Value, typename Last>
float sum_over(std::size_t n, Value value, Last last) {
    Vector sums[4] = {};  // enough to hide the latency of an addition
    std::size_t c = 0;
    for (; c + 4 * kLanes <= n; c += 4 * kLanes) {
#pragma GCC unroll 4
        for (std::size_t v = 0; v < 4; ++v) sums[v] += value(c + v * kLanes);
    }
    for (; c + kLanes <= n; c += kLanes) sums[0] += value(c);
    float sum = sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; c < n; ++c) sum += last(c);
    return sum;
}

void normalise(const Norm &norm) {
    const std::size_t n = norm.channels;
    const float share = 1.0f / static_cast<float>(n);
    for (std::size_t row = 0; row < norm.rows; ++row) {
        const float *x = norm.x + row * n, *residual = norm.residual ? norm.residual + row * n : nullptr;
        float *y = norm.out + row * n;
        float sum = 0;
        if (residual) {
            sum = sum_over(
                n,
                [&](std::size_t c) {
                    const Vector both = load(x + c) + load(residual + c);
                    store(y + c, both);
                    return both;
                },
                [&](std::size_t c) { return y[c] = x[c] + residual[c]; });
            x = y;
        } else if (norm.bias) {
            sum = sum_over(
                n, [&](std::size_t c) { return load(x + c); }, [&](std::size_t c) { return x[c]; });
        }
        const float mean = norm.bias ? share * sum : 0;
        const float squares = sum_over(
            n,
            [&](std::size_t c) {
                const Vector deviation = load(x + c) - mean;
                return deviation * deviation;
            },
            [&](std::size_t c) { return (x[c] - mean) * (x[c] - mean); });
        const float factor = 1.0f / __builtin_sqrtf(squares * share + norm.epsilon);
        if (norm.factors) norm.factors[row] = factor;
        std::size_t c = 0;
        for (; c + kLanes <= n; c += kLanes) {
            const Vector normal = (load(x + c) - mean) * factor * load(norm.weight + c);
            store(y + c, norm.bias ? normal + load(norm.bias + c) : normal);
        }
        for (; c < n; ++c) {
            const float normal = (x[c] - mean) * factor * norm.weight[c];
            y[c] = norm.bias ? normal + norm.bias[c] : normal;
        }
    }
}

typedef std::uint16_t HalfVector __attribute__((vector_size(LANES * sizeof(std::uint16_t)), aligned(2), may_alias));

inline Vector load_wide(const float *from) { return load(from); }
inline Vector load_wide(const std::uint16_t *from) {
    return (Vector)(__builtin_convertvector(*reinterpret_cast<const HalfVector *>(from), IntVector) << 16);
}
inline float wide(float value) { return value; }
inline float wide(std::uint16_t bits) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16); }

// Rows of a table that is not in any cache are fetched while those before are added: only the ids tell which they are.
template <typename Item>
void look_up_of(const LookUp &l) {
    constexpr std::size_t kAhead = 2;
    const auto *table = static_cast<const Item *>(l.table);
    for (std::size_t row = 0; row < l.rows; ++row) {
        const Item *a = table + static_cast<std::size_t>(l.ids[row]) * l.width;
        const Item *later = row + kAhead < l.rows ? table + static_cast<std::size_t>(l.ids[row + kAhead]) * l.width : a;
        const float *b = l.added + static_cast<std::size_t>(l.places[row]) * l.width;
        float *y = l.out + row * l.width;
        const float factor = l.factors[row];
        std::size_t c = 0;
        for (; c + kLanes <= l.width; c += kLanes) {
            __builtin_prefetch(later + c);
            store(y + c, (load_wide(a + c) + load(b + c)) * factor + load(l.bias + c));
        }
        for (; c < l.width; ++c) y[c] = (wide(a[c]) + b[c]) * factor + l.bias[c];
    }
}

void look_up(const LookUp &l) { l.rounded ? look_up_of<std::uint16_t>(l) : look_up_of<float>(l); }

// A score that is no number is never the largest, and makes the sum none either.
float soften(float *scores, const float *bias, std::size_t count, Softmax &state) {
    const Vector lowest = broadcast(-__builtin_inff());
    Vector largest = lowest;
    std::size_t c = 0;
    for (; c + kLanes <= count; c += kLanes) {
        Vector s = load(scores + c);
        if (bias) {
            s += load(bias + c);
            store(scores + c, s);
        }
        largest = s > largest ? s : largest;
    }
    if (c < count) {
        Vector s = load(scores + c);
        if (bias) s += load_first(bias + c, count - c);
        store(scores + c, lowest);
        store_first(scores + c, s, count - c);
        s = load(scores + c);
        largest = s > largest ? s : largest;
    }
    const float block = largest_of(largest), maximum = block > state.maximum ? block : state.maximum;
    // Where all are −∞ so far, all powers are 0 and not NaN: a later block of keys may be visible.
    const float base = maximum == -__builtin_inff() ? 0.0f : maximum;
    Vector sum = {};
    for (c = 0; c < count; c += kLanes) {
        const Vector power = exponential(load(scores + c) - base);
        store(scores + c, power);
        sum += power;
    }
    const float kept = state.maximum == maximum ? 1.0f : exponential(broadcast(state.maximum - base))[0];
    state = {maximum, state.sum * kept + sum_of(sum)};
    return kept;
}

template <std::size_t A, std::size_t B>
void products_of(const Products &p, std::size_t first, std::size_t row) {
    const float *a = p.a + first * p.a_stride, *b = p.b + row * p.b_stride;
    Vector sums[A][B] = {};
    std::size_t k = 0;
    for (; k + kLanes <= p.depth; k += kLanes) {
        Vector from[B];
#pragma GCC unroll 4
        for (std::size_t j = 0; j < B; ++j) from[j] = load(b + j * p.b_stride + k);
#pragma GCC unroll 4
        for (std::size_t i = 0; i < A; ++i) {
            const Vector x = load(a + i * p.a_stride + k);
#pragma GCC unroll 4
            for (std::size_t j = 0; j < B; ++j) sums[i][j] += x * from[j];
        }
    }
#pragma GCC unroll 4
    for (std::size_t i = 0; i < A; ++i) {
        float found[4];
        if constexpr (B == 4) {
            sums_of(sums[i], found);
        } else {
            for (std::size_t j = 0; j < B; ++j) found[j] = sum_of(sums[i][j]);
        }
        for (std::size_t j = 0; j < B; ++j) {
            for (std::size_t c = k; c < p.depth; ++c) found[j] += a[i * p.a_stride + c] * b[j * p.b_stride + c];
            p.out[(first + i) * p.out_stride + row + j] = p.factor * found[j];
        }
    }
}

template <std::size_t A>
void products_of(const Products &p, std::size_t first) {
    std::size_t row = 0;
    for (; row + 4 <= p.b_count; row += 4) products_of<A, 4>(p, first, row);
    for (; row < p.b_count; ++row) products_of<A, 1>(p, first, row);
}

void products(const Products &p) {
    constexpr std::size_t kTogether = kLanes == 16 ? 4 : 2;  // as many as there are registers for
    std::size_t first = 0;
    for (; first + kTogether <= p.a_count; first += kTogether) products_of<kTogether>(p, first);
    if constexpr (kTogether == 4) {
        if (p.a_count - first == 3) return products_of<3>(p, first);
        if (p.a_count - first == 2) return products_of<2>(p, first);
    }
    if (first < p.a_count) products_of<1>(p, first);
}

void measure(const Measure &m) {
    const std::size_t n = m.channels;
    const float share = 1.0f / static_cast<float>(m.rows);
    for (std::size_t c = 0; c < n; ++c) m.saliencies[c] = 0;
    for (std::size_t row = 0; row < m.rows; ++row) {
        const float *x = m.x + row * n;
        std::size_t c = 0;
        for (; c + kLanes <= n; c += kLanes) {
            const Vector deviation = m.mean ? load(x + c) - load(m.mean + c) : load(x + c);
            store(m.saliencies + c, load(m.saliencies + c) + deviation * deviation);
        }
        for (; c < n; ++c) {
            const float deviation = m.mean ? x[c] - m.mean[c] : x[c];
            m.saliencies[c] += deviation * deviation;
        }
    }
    for (std::size_t c = 0; c < n; ++c) m.saliencies[c] = __builtin_sqrtf(m.saliencies[c] * share) * m.norms[c];
}

void take(const Take &t) {
    for (std::size_t row = 0; row < t.rows; ++row) {
        const float *x = t.x + row * t.channels;
        float *out = t.out + row * t.count;
        if (t.means) {
            for (std::size_t j = 0; j < t.count; ++j) out[j] = x[t.ids[j]] - t.means[j];
        } else {
            for (std::size_t j = 0; j < t.count; ++j) out[j] = x[t.ids[j]];
        }
    }
}

void rotate(const Rotary &r) {
    for (std::size_t row = 0; row < r.rows; ++row) {
        const float *cosines = r.cosines + row * r.half, *sines = r.sines + row * r.half;
        for (std::size_t head = 0; head < r.heads; ++head) {
            const float *a = r.x + row * r.stride + head * 2 * r.half, *b = a + r.half;
            float *to_a = r.out + row * r.out_stride + head * 2 * r.half, *to_b = to_a + r.half;
            std::size_t i = 0;
            for (; i + kLanes <= r.half; i += kLanes) {
                const Vector x = load(a + i), y = load(b + i), cosine = load(cosines + i), sine = load(sines + i);
                store(to_a + i, x * cosine - y * sine);
                store(to_b + i, y * cosine + x * sine);
            }
            for (; i < r.half; ++i) {
                const float x = a[i], y = b[i];
                to_a[i] = x * cosines[i] - y * sines[i];
                to_b[i] = y * cosines[i] + x * sines[i];
            }
        }
    }
}

}  // namespace
}  // namespace sluice
