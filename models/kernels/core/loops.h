// The inner loops as templates over the vector width. Each instruction set's source file defines LANES and includes
// this once, compiled with its own flags.
#pragma once

#include "activations.h"
#include "depthwise_loops.h"
#include "instruction_set.h"
#include "roofline_loops.h"
#include "row_loops.h"
#include "strassen_loops.h"
#include "tile_sizes.h"
#include "vector.h"

namespace sluice {
namespace {

// Where a tile reads its weights: it enters a tap, then reads a row for each of its inputs.
struct Consecutive {
    const float *weights;
    const std::size_t tap_step, row_step;
    const float *row = nullptr;

    void enter(std::size_t tap) { row = weights + tap * tap_step; }

    template <std::size_t Vectors>
    void read(std::size_t, Vector (&w)[Vectors]) {
#pragma GCC unroll 8
        for (std::size_t v = 0; v < Vectors; ++v) w[v] = load(row + v * kLanes);
        row += row_step;
    }
};

// So many rows ahead weights are fetched to the nearest cache, where the processor does not see which is next.
constexpr std::size_t kIndexedAhead = 4;

struct Indexed {
    const float *weights;
    const std::size_t tap_step;
    const std::int32_t *index;
    const std::size_t last;
    const float *rows = nullptr;

    void enter(std::size_t tap) { rows = weights + tap * tap_step; }

    template <std::size_t Vectors>
    void read(std::size_t k, Vector (&w)[Vectors]) const {
        const float *row = rows + static_cast<std::size_t>(index[k]) * kBlock;
        const float *later = rows + static_cast<std::size_t>(index[k + kIndexedAhead < last ? k + kIndexedAhead : last]) * kBlock;
#pragma GCC unroll 8
        for (std::size_t v = 0; v < Vectors * kLanes; v += kLine) __builtin_prefetch(later + v, 0, 3);
#pragma GCC unroll 8
        for (std::size_t v = 0; v < Vectors; ++v) w[v] = load(row + v * kLanes);
    }
};

template <std::size_t Rows, std::size_t Vectors>
struct Size {
    static constexpr std::size_t rows = Rows, vectors = Vectors;
};

// A call would have all sums of a tile saved.
__attribute__((always_inline)) inline void fetch_row(const Tile &t, std::size_t row) {
    const std::size_t from = (t.ahead_index ? static_cast<std::size_t>(t.ahead_index[row]) : t.ahead_first + row) * kBlock;
    for (std::size_t i = 0; i < t.ahead_count; ++i) {
        if (t.ahead_near) __builtin_prefetch(t.ahead_lines[i] + from, 0, 3);
        else __builtin_prefetch(t.ahead_lines[i] + from, 0, 2);
    }
}

template <std::size_t Rows, std::size_t Vectors, typename Source>
void tile(const Tile &t, Source source) {
    Vector sum[Rows][Vectors] = {};
    if (!t.first) {
#pragma GCC unroll 8
        for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
            for (std::size_t v = 0; v < Vectors; ++v) sum[r][v] = load(t.sums + r * kBlock + v * kLanes);
        }
    }
    const std::size_t depth = t.depth;
    const std::size_t interval = t.ahead_rows ? (depth * t.taps + t.ahead_rows - 1) / t.ahead_rows : SIZE_MAX;
    std::size_t wait = interval, fetched = 0;
    for (std::size_t tap = 0; tap < t.taps; ++tap) {
        const float *x[Rows];
        for (std::size_t r = 0; r < Rows; ++r) x[r] = t.activations[tap * t.activation_tap + r] + t.begin;
        source.enter(tap);
        for (std::size_t k = 0; k < depth; ++k) {
            if (--wait == 0) {
                wait = interval;
                fetch_row(t, fetched++);
            }
            Vector w[Vectors];
            source.read(k, w);
#pragma GCC unroll 8
            for (std::size_t r = 0; r < Rows; ++r) {
                const Vector a = broadcast(x[r][k]);
#pragma GCC unroll 8
                for (std::size_t v = 0; v < Vectors; ++v) sum[r][v] += a * w[v];
            }
        }
    }
    if (!t.last) {
#pragma GCC unroll 8
        for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
            for (std::size_t v = 0; v < Vectors; ++v) store(t.sums + r * kBlock + v * kLanes, sum[r][v]);
        }
        return;
    }
    const Vector floor = broadcast(t.floor), ceiling = broadcast(t.ceiling);
#pragma GCC unroll 8
    for (std::size_t r = 0; r < Rows; ++r) {
        float *out = t.out + r * t.out_stride;
#pragma GCC unroll 8
        for (std::size_t v = 0; v < Vectors; ++v) {
            const std::size_t column = v * kLanes;
            const Vector z = sum[r][v] * load(t.scale + column) + load(t.shift + column);
            const Vector y = at_most(at_least(z, floor), ceiling) * load(t.saliency + column);
            if (column + kLanes <= t.columns) {
                store(out + column, y);
            } else {
                store_first(out + column, y, t.columns - column);
            }
        }
    }
}

// Calls function with the Size of a tile, so that it is a constant in there.
template <std::size_t Rows, std::size_t Vectors, typename Function>
void with_size(std::size_t rows, std::size_t vectors, const Function &function) {
    if (vectors != Vectors) {
        if constexpr (Vectors < kVectors) with_size<1, Vectors + 1>(rows, vectors, function);
    } else if (rows != Rows) {
        if constexpr (Rows < most_rows(Vectors)) with_size<Rows + 1, Vectors>(rows, vectors, function);
    } else {
        function(Size<Rows, Vectors>{});
    }
}

void run_tile(const Tile &t, std::size_t rows, std::size_t vectors) {
    with_size<1, 1>(rows, vectors, [&](auto size) {
        if (t.in_place && t.index) {
            tile<size.rows, size.vectors>(t, Indexed{t.weights, t.weight_tap, t.index, t.depth - 1});
        } else {
            const float *weights = t.in_place ? t.weights + t.begin * t.weight_row : t.weights;
            tile<size.rows, size.vectors>(t, Consecutive{weights, t.weight_tap, t.weight_row});
        }
    });
}

[[maybe_unused]] void plan_nothing(Panel &) {}

[[maybe_unused]] void pack_then_tile(const Tile &t, const Panel &p, std::size_t first_tap, std::size_t rows,
                                     std::size_t vectors) {
    const float *from[kBlock];
    for (std::size_t j = 0; j < p.count; ++j) {
        const std::size_t column = static_cast<std::size_t>(p.columns[j]);
        from[j] = p.weights + column / kBlock * p.block + first_tap + column % kBlock;
    }
    float *to = p.packed;
    for (std::size_t tap = 0; tap < t.taps; ++tap) {
        for (std::size_t k = 0; k < t.depth; ++k, to += p.row) {
            const std::size_t input = t.index ? static_cast<std::size_t>(t.index[k]) : t.begin + k;
            for (std::size_t j = 0; j < p.count; ++j) to[j] = from[j][tap * t.layer_tap + input * kBlock];
        }
    }
    run_tile(t, rows, vectors);
}

template <typename Function>
void finish_rows(const Finish &f, std::size_t rows, Function act) {
    constexpr std::size_t kTogether = kManyRegisters ? 4 : 1;  // vectors whose activations are taken step by step
    for (std::size_t r = 0; r < rows; ++r) {
        const float *sums = f.sums + r * kBlock;
        const float *residual = f.residual ? f.residual + r * f.stride : nullptr;
        float *out = f.out + r * f.stride;
        std::size_t c = 0;
        for (; c + kTogether * kLanes <= f.columns; c += kTogether * kLanes) {
            Vector y[kTogether];
#pragma GCC unroll 4
            for (std::size_t v = 0; v < kTogether; ++v) {
                const std::size_t at = c + v * kLanes;
                y[v] = load(sums + at) * load(f.scale + at) + load(f.shift + at);
            }
            apply(act, y);
#pragma GCC unroll 4
            for (std::size_t v = 0; v < kTogether; ++v) {
                const std::size_t at = c + v * kLanes;
                const Vector saliency = load(f.saliency + at);
                store(out + at, residual ? fused(y[v], saliency, load(residual + at)) : y[v] * saliency);
            }
        }
        for (; c < f.columns; c += kLanes) {
            const Vector y = act(load(sums + c) * load(f.scale + c) + load(f.shift + c)), saliency = load(f.saliency + c);
            if (c + kLanes <= f.columns) {
                store(out + c, residual ? fused(y, saliency, load(residual + c)) : y * saliency);
            } else {
                const std::size_t count = f.columns - c;
                const Vector added = residual ? fused(y, saliency, load_first(residual + c, count)) : y * saliency;
                store_first(out + c, added, count);
            }
        }
    }
}

void finish(const Finish &f, std::size_t rows) {
    with_activation(f.activation, [&](auto act) { finish_rows(f, rows, act); });
}

// Rows of weights that are fetched ahead: 8 KiB, the time that memory takes. What comes from memory goes to the second
// cache first, which has more requests under way than the nearest, and from there to that a few rows ahead.
constexpr std::size_t kRowsAhead = 32, kRowsNear = 8;

// How near to the processor is fetched: 3 the nearest cache, less the second.
template <int Nearness>
struct Hint {
    static constexpr int value = Nearness;
};

template <std::size_t Rows, std::size_t Count>
void lines(const Lines &l) {
    constexpr std::size_t kVectorsOfLine = kLine / kLanes;
    Vector sum[Rows][Count][kVectorsOfLine] = {};
    const auto row = [&](const float *block, std::size_t k) {
        return block + (l.index ? static_cast<std::size_t>(l.index[k]) : k) * kBlock;
    };
    const auto fetch = [&](std::size_t k, auto hint) {
        if (k >= l.depth && !(l.next && k - l.depth < l.depth)) return;
        const float *later = k < l.depth ? row(l.weights, k) : row(l.next, k - l.depth);
#pragma GCC unroll 4
        for (std::size_t i = 0; i < Count; ++i) __builtin_prefetch(later + l.offsets[i], 0, decltype(hint)::value);
    };
    for (std::size_t k = 0; k < l.depth; ++k) {
        if (l.far) {
            fetch(k + kRowsAhead, Hint<1>{});
            fetch(k + kRowsNear, Hint<3>{});
        } else {
            fetch(k + kRowsAhead, Hint<3>{});
        }
        const float *from = row(l.weights, k);
#pragma GCC unroll 4
        for (std::size_t i = 0; i < Count; ++i) {
#pragma GCC unroll 4
            for (std::size_t v = 0; v < kVectorsOfLine; ++v) {
                const Vector w = load(from + l.offsets[i] + v * kLanes);
#pragma GCC unroll 4
                for (std::size_t r = 0; r < Rows; ++r) sum[r][i][v] += broadcast(l.activations[r][k]) * w;
            }
        }
    }
    for (std::size_t r = 0; r < Rows; ++r) {
        for (std::size_t i = 0; i < Count; ++i) {
            for (std::size_t v = 0; v < kVectorsOfLine; ++v)
                store(l.sums + r * l.stride + i * kLine + v * kLanes, sum[r][i][v]);
        }
    }
}

// More rows have too many sums for 16 registers.
constexpr std::size_t kFewRows = LANES == 16 ? 4 : 1;

template <std::size_t Rows>
void lines_of(const Lines &l, std::size_t rows) {
    if (rows != Rows) {
        if constexpr (Rows < kFewRows) lines_of<Rows + 1>(l, rows);
        return;
    }
    switch (l.count) {
        case 1: return lines<Rows, 1>(l);
        case 2: return lines<Rows, 2>(l);
        case 3: return lines<Rows, 3>(l);
        default: return lines<Rows, 4>(l);
    }
}

void lines(const Lines &l, std::size_t rows) { lines_of<1>(l, rows); }

void add_scaled(const float *x, float factor, std::size_t n, float *sums) {
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(sums + i, load(sums + i) + load(x + i) * factor);
    for (; i < n; ++i) sums[i] += x[i] * factor;
}

template <std::size_t Vectors>
void means(const float *x, std::size_t positions, std::size_t channels, float *out) {
    Vector sum[Vectors] = {};
    for (std::size_t p = 0; p < positions; ++p, x += channels) {
#pragma GCC unroll 4
        for (std::size_t v = 0; v < Vectors; ++v) sum[v] += load(x + v * kLanes);
    }
    for (std::size_t v = 0; v < Vectors; ++v) store(out + v * kLanes, sum[v] / static_cast<float>(positions));
}

void means(const float *x, std::size_t positions, std::size_t channels, float *out) {
    std::size_t c = 0;
    for (; c + 4 * kLanes <= channels; c += 4 * kLanes) means<4>(x + c, positions, channels, out + c);
    for (; c + kLanes <= channels; c += kLanes) means<1>(x + c, positions, channels, out + c);
    if (c < channels && c > 0) {  // the last few once more, with those before them
        means<1>(x + channels - kLanes, positions, channels, out + channels - kLanes);
        return;
    }
    for (; c < channels; ++c) {
        float sum = 0;
        for (std::size_t p = 0; p < positions; ++p) sum += x[p * channels + c];
        out[c] = sum / static_cast<float>(positions);
    }
}

void pool(const float *x, std::size_t height, std::size_t width, std::size_t channels, float *out) {
    for (std::size_t i = 0; i < height / 2; ++i) {
        for (std::size_t j = 0; j < width / 2; ++j, out += channels) {
            const float *a = x + (2 * i * width + 2 * j) * channels;
            const float *b = a + channels, *c = a + width * channels, *d = c + channels;
            std::size_t k = 0;
            for (; k + kLanes <= channels; k += kLanes) {
                store(out + k, greater(greater(load(a + k), load(b + k)), greater(load(c + k), load(d + k))));
            }
            for (; k < channels; ++k) out[k] = greater(greater(a[k], b[k]), greater(c[k], d[k]));
        }
    }
}

constexpr InstructionSet instruction_set(const char *name, decltype(InstructionSet::plan) plan,
                                         decltype(InstructionSet::packing_tile) packing_tile) {
    return {name,     kLanes, kVectors,     {most_rows(1), most_rows(2), most_rows(3), most_rows(4)},
            run_tile, plan,   packing_tile, finish, kHalfRows, halves_tile, mix_rows,
            kFewRows, lines, normalise, look_up, soften, products, measure, take, rotate, depthwise, add_scaled, means, pool,
            accumulate<kVectors * most_rows(kVectors)>, read, false, nullptr, nullptr};
}

}  // namespace
}  // namespace sluice
