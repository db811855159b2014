#include "product.h"

#include <algorithm>
#include <limits>

namespace sluice {
namespace {

constexpr std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

struct Product {
    const InstructionSet &set;
    const Weights &weights;
    const float *const *activations;
    std::size_t positions;
    Channels inputs, outputs;
    const Epilogue &epilogue;
    Buffer &scratch;
    float *out;

    std::size_t output(std::size_t j) const { return outputs.ids ? static_cast<std::size_t>(outputs.ids[j]) : j; }

    // Active outputs first … first + count of the list, at most 64, all positions. `columns` holds their weights.
    void panel(std::size_t first, std::size_t count, const float *columns, std::size_t row, const std::int32_t *index, std::size_t tap) const {
        alignas(64) float scale[kBlock], shift[kBlock], saliency[kBlock];
        for (std::size_t j = 0; j < kBlock; ++j) {
            const std::size_t o = output(first + std::min(j, count - 1));
            scale[j] = epilogue.scale ? epilogue.scale[o] : 1.0f;
            shift[j] = epilogue.shift ? epilogue.shift[o] : 0.0f;
            saliency[j] = epilogue.saliency ? epilogue.saliency[first + std::min(j, count - 1)] : 1.0f;
        }
        Tile tile{};
        tile.activation_stride = positions;
        tile.weight_row = row;
        tile.weight_tap = tap;
        tile.index = index;
        tile.taps = weights.taps;
        tile.depth = inputs.count;
        tile.floor = epilogue.relu ? 0.0f : -std::numeric_limits<float>::infinity();
        tile.out_stride = outputs.count;
        const std::size_t width = set.vectors * set.lanes;
        for (std::size_t column = 0; column < count; column += width) {
            tile.weights = columns + column;
            tile.scale = scale + column;
            tile.shift = shift + column;
            tile.saliency = saliency + column;
            tile.columns = std::min(width, count - column);
            rows(tile, first + column);
        }
    }

    // Rows are shared out evenly: 49 positions are 4 tiles of 6 and 5 of 5, not 8 of 6 and a slow one of 1.
    void rows(Tile &tile, std::size_t column) const {
        const std::size_t vectors = divide_up(tile.columns, set.lanes);
        const std::size_t tiles = divide_up(positions, set.rows[vectors - 1]);
        const std::size_t few = positions / tiles, larger = positions % tiles;
        for (std::size_t i = 0, position = 0; i < tiles; ++i) {
            const std::size_t rows = few + (i < larger ? 1 : 0);
            tile.activations = activations + position;
            tile.out = out + position * outputs.count + column;
            set.tile(tile, rows, vectors);
            position += rows;
        }
    }

    // A block of the layer of which all outputs are active: used where it lies.
    void in_place(std::size_t first, std::size_t count, std::size_t block) const {
        const std::size_t tap = weights.inputs * kBlock;
        panel(first, count, weights.packed + block * weights.taps * tap, kBlock, inputs.ids, tap);
    }

    // Active outputs of partly active blocks, however many: packed into panels of at most 64 columns, of even width.
    void packed(std::size_t first, std::size_t count) const {
        const std::size_t vectors = divide_up(count, set.lanes), per_panel = kBlock / set.lanes;
        const std::size_t panels = divide_up(vectors, per_panel);
        for (std::size_t i = 0; i < panels; ++i) {
            const std::size_t begin = i * vectors / panels * set.lanes;
            const std::size_t size = std::min((i + 1) * vectors / panels * set.lanes, count) - begin;
            const std::size_t row = divide_up(size, set.lanes) * set.lanes;
            float *columns = scratch.reserve(weights.taps * inputs.count * row + kBlock);
            set.pack({weights.packed, weights.inputs, weights.taps, inputs.ids, inputs.count, outputs.ids + first + begin, size, columns, row});
            panel(first + begin, size, columns, row, nullptr, inputs.count * row);
        }
    }

    void run() const {
        if (!outputs.ids) {
            for (std::size_t first = 0; first < outputs.count; first += kBlock) in_place(first, std::min(kBlock, outputs.count - first), first / kBlock);
            return;
        }
        std::size_t waiting = 0;  // outputs of partly active blocks before `first`, not yet computed
        for (std::size_t first = 0; first < outputs.count;) {
            const std::size_t block = output(first) / kBlock, width = std::min(kBlock, weights.outputs - block * kBlock);
            std::size_t count = 1;
            while (first + count < outputs.count && output(first + count) / kBlock == block) ++count;
            if (count == width) {
                if (waiting) packed(first - waiting, waiting);
                waiting = 0;
                in_place(first, count, block);
            } else {
                waiting += count;
            }
            first += count;
        }
        if (waiting) packed(outputs.count - waiting, waiting);
    }
};

}  // namespace

void pack_weights(const float *weight, std::size_t outputs, std::size_t inputs, std::size_t taps, float *packed) {
    for (std::size_t o = 0; o < outputs; ++o) {
        float *column = packed + o / kBlock * taps * inputs * kBlock + o % kBlock;
        for (std::size_t i = 0; i < inputs; ++i) {
            for (std::size_t tap = 0; tap < taps; ++tap) column[(tap * inputs + i) * kBlock] = *weight++;
        }
    }
}

void multiply(const InstructionSet &set, const Weights &weights, const float *const *activations, std::size_t positions, Channels inputs,
              Channels outputs, const Epilogue &epilogue, Buffer &panel, float *out) {
    if (positions == 0 || outputs.count == 0) return;
    Product{set, weights, activations, positions, inputs, outputs, epilogue, panel, out}.run();
}

}  // namespace sluice
