#include "strassen.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include "spans.h"

namespace sluice {
namespace {

// With fewer rows the additions of weights cost more than a product in eight, and with fewer inputs those of sums.
constexpr std::size_t kFewestRows = 40, kFewestInputs = 128;

// Inputs of one half that are multiplied at a time: the weights of a block, its mixed ones and those of the next block,
// 96 KiB each, stay in the second cache beside the rows.
constexpr std::size_t kHalfInputs = 192;

// Pairs of rows that are multiplied at a time, as evenly as that goes.
constexpr std::size_t kPairs = 72;

// Powers of two that the largest values of two rows that are mixed, and of all columns, may be apart.
constexpr std::int32_t kRowExponents = 6, kColumnExponents = 10;

// By how much larger the error may become where inputs that are mixed are of unlike size.
constexpr double kMostLost = 2;

// Of a float's bits without its sign, which are in order: those of 2^124, of which four add up to less than infinity.
constexpr std::int32_t kLargest = (124 + 127) << 23;
constexpr std::int32_t exponent(std::int32_t bits) { return bits >> 23; }

// Whether mixtures of two are finite, and they are no more than so many powers of two apart.
bool near(std::int32_t a, std::int32_t b, std::int32_t exponents) {
    return std::max(a, b) < kLargest && std::abs(exponent(a) - exponent(b)) <= exponents;
}

// How inputs and blocks are halved.
struct Halves {
    std::size_t inputs, half, blocks, parts;

    explicit Halves(const Weights &weights)
        : inputs(weights.inputs), half(inputs / 2), blocks(weights.outputs / kBlock), parts(divide_up(half, kHalfInputs)) {}

    // Where a part begins among the inputs of a half; among those of both it is twice as far.
    std::size_t begin(std::size_t part) const { return part * half / parts; }
    std::size_t depth(std::size_t part) const { return begin(part + 1) - begin(part); }

    const float *weights(const Weights &of, std::size_t block, std::size_t part) const {
        return of.packed + (block * inputs + 2 * begin(part)) * kBlock;
    }
};

// Some pairs of rows, one of each half.
struct Rows {
    std::size_t begin, count;
};

struct Blocks {
    std::size_t begin, end;
};

struct Buffers {
    FloatBuffer mixed_rows, mixed_weights, sums, zeros, last_lower;
};

Buffers &buffers() {
    thread_local Buffers kept;
    return kept;
}

struct ByHalves {
    const InstructionSet &set;
    const Weights &weights;
    const InputRows &x;
    const Epilogue &epilogue;
    float *out;
    const Halves halves{weights};
    const Blocks blocks{0, halves.blocks};
    const std::size_t pairs = divide_up(x.count, 2), quadrant_rows = set.half_rows * kBlock;
    Buffers &kept = buffers();

    bool has_lower(std::size_t pair) const { return pairs + pair < x.count; }

    // Whether rows that are mixed with each other are finite and of about the same size.
    bool even() const {
        for (std::size_t part = 0; part < halves.parts; ++part) {
            float *mixed = kept.mixed_rows.reserve(4 * halves.depth(part));
            for (std::size_t pair = 0; pair < pairs; ++pair) {
                if (!mix(pair, part, halves.depth(part), mixed)) return false;
            }
        }
        return true;
    }

    // Some blocks of some rows, which are even, a few rows at a time.
    void run(Rows all) const {
        const std::size_t chunks = divide_up(all.count, kPairs);
        for (std::size_t i = 0; i < chunks; ++i) {
            const std::size_t begin = i * all.count / chunks, end = (i + 1) * all.count / chunks;
            run_rows({all.begin + begin, end - begin}, i + 1 == chunks);
        }
    }

    // False, and nothing is written, where they are not even.
    bool run_rows(Rows rows, bool last_rows) const {
        const std::size_t tiles = divide_up(rows.count, set.half_rows), largest = divide_up(halves.half, halves.parts);
        kept.mixed_rows.reserve(4 * rows.count * largest);
        kept.mixed_weights.reserve(4 * largest * kHalfBlock);
        kept.sums.reserve((halves.parts > 1 ? (blocks.end - blocks.begin) * tiles : 1) * 2 * quadrant_rows);
        for (std::size_t part = 0; part < halves.parts; ++part) {
            if (!mix(rows, part)) return false;
            keep_last_lower(rows, tiles, part);
            for (std::size_t block = blocks.begin; block < blocks.end; ++block)
                run_block(rows, tiles, part, block, last_rows);
        }
        return true;
    }

    bool mix(Rows rows, std::size_t part) const {
        const std::size_t depth = halves.depth(part);
        bool even = true;
        for (std::size_t i = 0; i < rows.count; ++i)
            even &= mix(rows.begin + i, part, rows.count * depth, kept.mixed_rows.data() + i * depth);
        return even;
    }

    bool mix(std::size_t pair, std::size_t part, std::size_t apart, float *mixed) const {
        const std::size_t depth = halves.depth(part), from = 2 * halves.begin(part);
        const float *lower = has_lower(pair) ? x.row(pairs + pair) + from : kept.zeros.reserve(2 * depth);
        const RowPairBits bits = set.mix_rows(x.row(pair) + from, lower, depth, apart, mixed);
        return near(bits.upper, has_lower(pair) ? bits.lower : bits.upper, kRowExponents);
    }

    // A tile's rows lie at one stride: where the last one of the lower half is missing, those of its tile are copied.
    void keep_last_lower(Rows rows, std::size_t tiles, std::size_t part) const {
        if (has_lower(rows.begin + rows.count - 1)) return;
        const std::size_t width = 2 * halves.depth(part), from = 2 * halves.begin(part);
        float *to = kept.last_lower.reserve(set.half_rows * width);
        for (std::size_t pair = rows.begin + rows.count - rows.count / tiles; has_lower(pair); ++pair)
            to = std::copy_n(x.row(pairs + pair) + from, width, to);
        std::fill_n(to, width, 0.0f);
    }

    void run_block(Rows rows, std::size_t tiles, std::size_t part, std::size_t block, bool last_rows) const {
        const bool last_part = part + 1 == halves.parts;
        const std::size_t depth = halves.depth(part), from = 2 * halves.begin(part);
        float *sums = kept.sums.data() + (halves.parts > 1 ? (block - blocks.begin) * tiles * 2 * quadrant_rows : 0);
        Folded folded;
        if (last_part) folded = fold(epilogue, {nullptr, weights.outputs}, block * kBlock, kBlock);
        HalvesTile tile;
        tile.weights = halves.weights(weights, block, part);
        tile.mixed_weights = kept.mixed_weights.data();
        tile.mixed_rows = kept.mixed_rows.data();
        tile.mixed_apart = rows.count * depth;
        tile.mixes = true;
        tile.depth = depth;
        tile.first = part == 0;
        tile.last = last_part && !epilogue.finishes();
        tile.columns = {folded.scale, folded.shift, folded.saliency, epilogue.floor(), epilogue.ceiling()};
        tile.out_stride = weights.outputs;
        tile.ahead = reinterpret_cast<const char *>(ahead_of(block, part, last_rows));
        tile.ahead_bytes = divide_up(2 * kBlock * sizeof(float), 7 * tiles);
        const std::size_t end = rows.begin + rows.count, fewest = rows.count / tiles, more = rows.count % tiles;
        for (std::size_t i = 0, pair = rows.begin, count; pair < end; ++i, pair += count) {
            count = fewest + (i < more);
            const bool whole = has_lower(pair + count - 1);
            tile.upper = x.row(pair) + from;
            tile.upper_stride = x.stride;
            tile.lower = whole ? x.row(pairs + pair) + from : kept.last_lower.data();
            tile.lower_stride = whole ? x.stride : 2 * depth;
            tile.lower_rows = whole ? count : count - 1;
            for (std::size_t half = 0; half < 2; ++half) {
                tile.sums[half] = sums + half * quadrant_rows;
                tile.out[half] = out + (half * pairs + pair) * weights.outputs + block * kBlock;
            }
            set.halves_tile(tile, count);
            if (last_part && epilogue.finishes()) finish(tile, count, folded);
            if (halves.parts > 1) sums += 2 * quadrant_rows;
            tile.mixes = false;
            tile.mixed_rows += count * depth;
            tile.ahead += 7 * depth * tile.ahead_bytes;
        }
    }

    void finish(const HalvesTile &tile, std::size_t rows, const Folded &folded) const {
        for (std::size_t half = 0; half < 2; ++half) {
            const float *residual = epilogue.residual ? epilogue.residual + (tile.out[half] - out) : nullptr;
            set.finish({epilogue.activation, tile.sums[half], folded.scale, folded.shift, folded.saliency, residual,
                        tile.out[half], weights.outputs, kBlock},
                       half ? tile.lower_rows : rows);
        }
    }

    // The weights that are multiplied by next: behind the last ones those of the layer that was packed after this one, which
    // in a model is the one that is called next.
    const float *ahead_of(std::size_t block, std::size_t part, bool last_rows) const {
        if (block + 1 < blocks.end) return halves.weights(weights, block + 1, part);
        if (part + 1 < halves.parts) return halves.weights(weights, blocks.begin, part + 1);
        return halves.weights(weights, last_rows ? block + 1 : blocks.begin, 0);
    }
};

bool columns_are_even(const Weights &weights) {
    std::int32_t smallest = kLargest, largest = 0;
    for (std::size_t first = 0; first < weights.outputs; first += kBlock) {
        std::int32_t columns[kBlock] = {};
        const float *row = weights.packed + first * weights.inputs;
        for (std::size_t k = 0; k < weights.inputs; ++k, row += kBlock) {
            for (std::size_t c = 0; c < kBlock; ++c) {
                std::int32_t bits;
                std::memcpy(&bits, row + c, sizeof bits);
                columns[c] = std::max(columns[c], bits & 0x7fffffff);
            }
        }
        for (std::size_t c = 0; c < std::min(kBlock, weights.outputs - first); ++c) {
            smallest = std::min(smallest, columns[c]);
            largest = std::max(largest, columns[c]);
        }
    }
    return near(smallest, largest, kColumnExponents);
}

// An input is mixed with one of the other half, as its weights are. Where those of one are r times as large and its
// activations, as they then often are, r times as small, products of one's activations with the other's weights are
// larger than those that are wanted, and so are their errors.
bool inputs_are_even(const Weights &weights) {
    const Halves halves(weights);
    std::vector<double> squares(weights.inputs);
    const float *weight = weights.packed;
    for (std::size_t block = 0; block < halves.blocks; ++block) {
        for (double &sum : squares) {
            for (std::size_t c = 0; c < kBlock; ++c, ++weight) sum += static_cast<double>(*weight) * *weight;
        }
    }
    double lost = 0;
    for (std::size_t part = 0; part < halves.parts; ++part) {
        const double *front = squares.data() + 2 * halves.begin(part), *back = front + halves.depth(part);
        for (std::size_t k = 0; k < halves.depth(part); ++k) {
            const double r = front[k] == back[k] ? 1 : std::sqrt(front[k] / back[k]), error = (2 + r + 1 / r) / 4;
            lost += error * error;
        }
    }
    return lost <= kMostLost * kMostLost * static_cast<double>(halves.half);
}

}  // namespace

bool can_be_halved(const Weights &weights) {
    const Halves halves(weights);
    return weights.inputs >= kFewestInputs && weights.inputs % 2 == 0 && halves.blocks && columns_are_even(weights) &&
           inputs_are_even(weights);
}

std::size_t multiply_by_halves(const InstructionSet &set, const Weights &weights, const InputRows &x,
                               const Epilogue &epilogue, float *out, Threads *threads) {
    if (x.count < kFewestRows) return 0;
    const ByHalves product{set, weights, x, epilogue, out};
    const std::size_t pairs = product.pairs, blocks = product.halves.blocks, outputs = blocks * kBlock,
                      shares = threads ? threads->count() : 1;
    if (shares == 1 && pairs <= kPairs) return product.run_rows({0, pairs}, true) ? outputs : 0;
    if (!product.even()) return 0;
    // Blocks rather than rows, of which each share would mix all weights; but evenly.
    const std::size_t by_blocks = std::gcd(blocks, shares), by_rows = shares / by_blocks;
    const auto run = [&](std::size_t i) {
        const std::size_t row = i / by_blocks, block = i % by_blocks * (blocks / by_blocks);
        const std::size_t begin = row * pairs / by_rows, end = (row + 1) * pairs / by_rows;
        const Blocks own{block, block + blocks / by_blocks};
        ByHalves{set, weights, x, epilogue, out, Halves(weights), own}.run({begin, end - begin});
    };
    if (shares == 1) {
        run(0);
    } else {
        threads->run(shares, run);
    }
    return outputs;
}

}  // namespace sluice
