// AMX: a unit of its own multiplies a tile of 16 positions by a tile of 16 lines of weights in 16 cycles. It has eight
// registers of a tile: four sums, which are all combinations of two tiles of positions by two strips, or one by four.
#define LANES 16
#include "amx_tiles.h"
#include "reduced_loops.h"

namespace sluice {
namespace {

// How many lines ahead weights are fetched: two to four tiles.
constexpr std::size_t kAhead = 48;

inline void prefetch(const Line *tile) {
#pragma GCC unroll 16
    for (std::size_t line = 0; line < kTileLines; ++line) __builtin_prefetch(tile + line);
}

// The sums of Tiles tiles of positions by Strips strips. `between` is called after each step, with vector work that
// does not depend on it: it runs beside the tile unit.
template <Datatype D, std::size_t Tiles, std::size_t Strips, typename Between>
void sum_up(const Job &job, const Strip *strips, std::size_t tile, Sum<D> *out, Between between) {
    static_assert(Tiles * Strips <= kMostTiles && (Tiles == 1 || Strips <= 2));
    const std::uint8_t *x = job.activations + tile * job.tile_bytes;
    const std::size_t position = job.position_bytes;
    barrier();
    _tile_zero(0);
    if constexpr (Tiles * Strips > 1) _tile_zero(1);
    if constexpr (Tiles * Strips > 2) _tile_zero(2);
    if constexpr (Tiles * Strips > 3) _tile_zero(3);
    for (std::size_t s = 0; s < job.steps; ++s) {
        const std::size_t from = job.weight_steps[s];
        _tile_stream_loadd(4, x + job.activation_steps[s], position);
        if constexpr (Tiles == 2) _tile_stream_loadd(5, x + job.tile_bytes + job.activation_steps[s], position);
        _tile_loadd(6, strips[0].weights + from, 64);
        multiply_tiles<D, 0, 4, 6>();
        if constexpr (Tiles == 2) multiply_tiles<D, Strips, 5, 6>();
        if constexpr (Strips > 1) {
            _tile_loadd(7, strips[1].weights + from, 64);
            multiply_tiles<D, 1, 4, 7>();
            if constexpr (Tiles == 2) multiply_tiles<D, 3, 5, 7>();
        }
        if constexpr (Strips > 2) {
            _tile_loadd(6, strips[2].weights + from, 64);
            multiply_tiles<D, 2, 4, 6>();
        }
        if constexpr (Strips > 3) {
            _tile_loadd(7, strips[3].weights + from, 64);
            multiply_tiles<D, 3, 4, 7>();
        }
        if (tile == 0) {
            for (std::size_t i = 0; i < Strips; ++i) prefetch(strips[i].weights + from + kAhead);
        }
        between();
    }
    // Sums are numbered [tile][strip] in the registers and lie as [strip][tile].
    _tile_stored(0, out, 64);
    if constexpr (Strips > 1) _tile_stored(1, out + Tiles * kTileItems, 64);
    if constexpr (Strips > 2) _tile_stored(2, out + 2 * kTileItems, 64);
    if constexpr (Strips > 3) _tile_stored(3, out + 3 * kTileItems, 64);
    if constexpr (Tiles == 2) {
        if constexpr (Strips == 1) {
            _tile_stored(1, out + kTileItems, 64);
        } else {
            _tile_stored(2, out + kTileItems, 64);
            _tile_stored(3, out + 3 * kTileItems, 64);
        }
    }
}

// Steps of a block between two turns of the epilogue of the block before. A turn of a row or two is mostly branches: one after
// each step made products of many rows take an eighth longer.
constexpr std::size_t kStepsToTurn = 4;

// The epilogue of a block is done some rows at a time between the steps of the next one.
template <Datatype D>
struct Pipeline {
    const Job &job;
    Block<Sum<D>> waiting;
    bool odd = false;
    alignas(64) Sum<D> sums[2][kMostTiles * kTileItems];

    explicit Pipeline(const Job &job_) : job(job_) {}

    template <std::size_t Tiles, std::size_t Strips>
    void add(const Strip *strips, std::size_t tile) {
        const std::size_t turns = job.steps / kStepsToTurn, share = turns ? (waiting.rows_left + turns - 1) / turns : 0;
        Sum<D> *to = sums[odd];
        std::size_t step = 0;
        sum_up<D, Tiles, Strips>(job, strips, tile, to, [&] {
            if (++step % kStepsToTurn == 0) finish_rows(job, waiting, share);
        });
        finish();
        waiting = Block<Sum<D>>(job, strips, Strips, tile, Tiles, to);
        odd = !odd;
    }

    void finish() { finish_rows(job, waiting, waiting.rows_left); }
};

template <Datatype D>
void multiply(const Job &job) {
    Pipeline<D> pipeline(job);
    std::size_t s = 0;
    if (job.tiles == 1) {
        for (; s + 4 <= job.strip_count; s += 4) pipeline.template add<1, 4>(job.strips + s, 0);
    }
    for (; s < job.strip_count; s += 2) {
        const bool two = s + 2 <= job.strip_count;
        std::size_t tile = 0;
        for (; tile + 2 <= job.tiles; tile += 2) {
            if (two) pipeline.template add<2, 2>(job.strips + s, tile);
            else pipeline.template add<2, 1>(job.strips + s, tile);
        }
        if (tile < job.tiles) {
            if (two) pipeline.template add<1, 2>(job.strips + s, tile);
            else pipeline.template add<1, 1>(job.strips + s, tile);
        }
    }
    pipeline.finish();
}

template <Datatype D>
std::size_t accumulate(std::size_t rounds) {
    enter(kTileLines);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (std::size_t round = 0; round < rounds; ++round) {
        multiply_tiles<D, 0, 4, 6>();
        multiply_tiles<D, 1, 4, 7>();
        multiply_tiles<D, 2, 5, 6>();
        multiply_tiles<D, 3, 5, 7>();
    }
    leave();
    return rounds * 4 * kTileItems * tile_inputs(D);
}

template <Datatype D>
constexpr ReducedSet amx_set() {
    return {"amx", 2, 4, 16, enter, leave, convert<D>, gather, multiply<D>, accumulate<D>};
}

}  // namespace

const ReducedSet kBf16Amx = amx_set<Datatype::bf16>();
const ReducedSet kInt8Amx = amx_set<Datatype::int8>();

}  // namespace sluice
