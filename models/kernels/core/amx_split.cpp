// The tile unit multiplies while the vector units split the weights of the next panel and finish the one before.
#define LANES 16
#include "amx_parts.h"
#include "amx_tiles.h"
#include "vector.h"

namespace sluice {
namespace {

constexpr std::size_t kTileBytes = kTileLines * sizeof(Line), kStepBytes = kParts * kTileBytes;

bool split_row(const float *x, std::size_t count, std::uint8_t *to) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i largest = _mm512_setzero_si512();
    for (std::size_t k = 0; k < count; k += kStepInputs, to += kStepBytes) {
        const std::size_t left = count - k;
        const auto mask = [](std::size_t n) { return static_cast<__mmask16>(n < 16 ? (1u << n) - 1 : 0xffff); };
        const __m512 low = _mm512_maskz_loadu_ps(mask(left), x + k),
                     high = left > 16 ? _mm512_maskz_loadu_ps(mask(left - 16), x + k + 16) : _mm512_setzero_ps();
        largest = _mm512_max_epi32(largest, _mm512_and_si512(_mm512_castps_si512(low), magnitude));
        largest = _mm512_max_epi32(largest, _mm512_and_si512(_mm512_castps_si512(high), magnitude));
        const Halves<kParts> halves = side_by_side<kParts>(low, high);
#pragma GCC unroll 3
        for (std::size_t part = 0; part < kParts; ++part) _mm512_store_si512(to + part * kTileBytes, halves.part[part]);
    }
    return _mm512_reduce_max_epi32(largest) < 0x7f800000;
}

// 16 columns of a row of weights, as it lies, or picked out of several lines.
struct InPlace {
    const float *weights;

    __m512 operator()(std::size_t strip, std::size_t from) const {
        return _mm512_load_ps(weights + from + strip * kColumns);
    }
};

struct Picked {
    const Pick *picks;

    __m512 operator()(std::size_t strip, std::size_t from) const {
        const Pick &pick = picks[strip];
        __m512 picked = _mm512_permutex2var_ps(_mm512_load_ps(pick.lines[0] + from), _mm512_load_si512(pick.steps[0]),
                                               _mm512_load_ps(pick.lines[1] + from));
        for (std::size_t line = 2; line < pick.count; ++line)
            picked = _mm512_permutex2var_ps(picked, _mm512_load_si512(pick.steps[line - 1]),
                                            _mm512_load_ps(pick.lines[line] + from));
        return picked;
    }
};

// Two inputs of 16 columns become a line of each part.
inline void split_lines(__m512 x, __m512 y, Line *to) {
    const Halves<kParts> halves = in_turn<kParts>(x, y);
#pragma GCC unroll 3
    for (std::size_t part = 0; part < kParts; ++part) _mm512_store_si512(to + part * 2 * kTileLines, halves.part[part]);
}

inline void fetch_row(const float *row) {
#pragma GCC unroll 4
    for (std::size_t line = 0; line < kBlock; line += kLine) __builtin_prefetch(row + line, 0, 2);
}

// Splits a panel, two inputs of two strips at a time, as many as there is time for.
class Splitting {
public:
    Splitting(const SplitPanel &panel, Line *to)
        : panel_(panel), pairs_((panel.depth + kStepInputs - 1) / kStepInputs * kTileLines),
          left_(panel.ready ? 0 : (panel.strips + 1) / 2 * pairs_), to_(to) {}

    std::size_t left() const { return left_; }

    void advance(std::size_t count) {
        if (count > left_) count = left_;
        left_ -= count;
        while (count > 0) {
            const std::size_t now = count < pairs_ - pair_ ? count : pairs_ - pair_;
            count -= now;
            if (panel_.picks) run(Picked{panel_.picks}, now);
            else run(InPlace{panel_.weights}, now);
            if (pair_ == pairs_) {
                pair_ = 0;
                strip_ += 2;
            }
        }
    }

private:
    const SplitPanel &panel_;
    const std::size_t pairs_;
    std::size_t left_, pair_ = 0, strip_ = 0;
    Line *to_;

    template <typename Columns>
    void run(Columns columns, std::size_t count) {
        const std::size_t other = strip_ + 1 < panel_.strips ? strip_ + 1 : strip_;
        const std::int32_t *index = panel_.index;
        const float *ahead = strip_ == 0 ? panel_.ahead : nullptr;
        const std::size_t depth = panel_.depth, tap = panel_.tap, begin = panel_.begin;
        const auto row = [&](std::size_t k) {
            return tap + (index ? static_cast<std::size_t>(index[k]) : begin + k) * kBlock;
        };
        const std::size_t end = pair_ + count;
        for (; pair_ < end; ++pair_) {
            const std::size_t k = 2 * pair_;
            if (k + 1 < depth) {
                const std::size_t first = row(k), second = row(k + 1);
                split_lines(columns(strip_, first), columns(strip_, second), to_);
                split_lines(columns(other, first), columns(other, second), to_ + kTileLines);
                if (ahead) {
                    fetch_row(ahead + first);
                    fetch_row(ahead + second);
                }
            } else {  // the last one has no second, and those that fill the step up have none at all
                const bool one = k < depth;
                const __m512 zero = _mm512_setzero_ps();
                split_lines(one ? columns(strip_, row(k)) : zero, zero, to_);
                split_lines(one ? columns(other, row(k)) : zero, zero, to_ + kTileLines);
            }
            // The next line of the tiles, or of those of the next step.
            to_ += (pair_ + 1) % kTileLines ? 1 : (kParts * 2 - 1) * kTileLines + 1;
        }
    }
};

void split_panel(const SplitPanel &panel, Line *to) {
    Splitting splitting(panel, to);
    splitting.advance(splitting.left());
}

// Brings a panel that was split before into the second cache.
class Fetching {
public:
    explicit Fetching(const SplitPanel &panel) : at_(panel.ready) {
        if (at_) left_ = (panel.depth + kStepInputs - 1) / kStepInputs * ((panel.strips + 1) / 2) * kParts * 2 * kTileLines;
    }

    std::size_t left() const { return left_; }

    void advance(std::size_t count) {
        for (; count > 0 && left_ > 0; --count, --left_) __builtin_prefetch(at_++, 0, 2);
    }

private:
    const Line *at_;
    std::size_t left_ = 0;
};

// What the vector units have to do during one panel, spread over the groups of tile products in it.
struct Chores {
    Splitting splitting;
    Fetching fetching;
    SplitFinish &waiting;
    std::size_t splits, fetches, rows;  // in a group

    Chores(const SplitJob &job, std::size_t groups)
        : splitting(job.next, job.next_weights), fetching(job.next), waiting(*job.waiting),
          splits((splitting.left() + groups - 1) / groups), fetches((fetching.left() + groups - 1) / groups),
          rows((waiting.left + groups - 1) / groups) {}

    __attribute__((noinline)) void operator()() {
        splitting.advance(splits);
        fetching.advance(fetches);
        finish(rows);
    }

    void finish(std::size_t count) {
        if (count > waiting.left) count = waiting.left;
        if (count == 0) return;
        waiting.finish(waiting.rows, count);
        waiting.left -= count;
        waiting.rows.sums += count * kBlock;
        waiting.rows.out += count * waiting.rows.stride;
        if (waiting.rows.residual) waiting.rows.residual += count * waiting.rows.stride;
    }
};

constexpr std::size_t kGroups = 6;  // of products in a step, one to a pair of parts

template <int Sum>
inline void begin(const SplitJob &job, float *sums) {
    // The intrinsics take a literal only.
    if (job.first) {
        asm volatile("tilezero %%tmm%c0" ::"i"(Sum));
    } else {
        asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(Sum), "r"(sums), "r"(kBlock * sizeof(float)) : "memory");
    }
}

// Two tiles of positions by two strips.
template <typename Chore>
void multiply_two(const SplitJob &job, std::size_t tile, std::size_t pair, Chore &chore) {
    const std::size_t tile_bytes = job.steps * kStepBytes, next_rows = job.tile_rows * kBlock;
    float *sums = job.sums + tile * next_rows + pair * 2 * kColumns;
    barrier();
    begin<0>(job, sums);
    begin<1>(job, sums + kColumns);
    begin<2>(job, sums + next_rows);
    begin<3>(job, sums + next_rows + kColumns);
    const std::uint8_t *x = job.activations + tile * tile_bytes;
    const Line *w = job.weights + pair * job.steps * kParts * 2 * kTileLines;
    const auto activations = [&](std::size_t part) {
        _tile_loadd(4, x + part * kTileBytes, 64);
        _tile_loadd(5, x + tile_bytes + part * kTileBytes, 64);
    };
    const auto weights = [&](std::size_t part) {
        _tile_loadd(6, w + part * 2 * kTileLines, 64);
        _tile_loadd(7, w + (part * 2 + 1) * kTileLines, 64);
    };
    const auto multiply = [&] {
        multiply_tiles<Datatype::bf16, 0, 4, 6>();
        multiply_tiles<Datatype::bf16, 1, 4, 7>();
        multiply_tiles<Datatype::bf16, 2, 5, 6>();
        multiply_tiles<Datatype::bf16, 3, 5, 7>();
        chore();
    };
    for (std::size_t s = 0; s < job.steps; ++s, x += kStepBytes, w += kParts * 2 * kTileLines) {
        activations(0);
        weights(2);
        multiply();
        weights(1);
        multiply();
        activations(1);
        multiply();
        weights(0);
        multiply();
        activations(0);
        multiply();
        activations(2);
        multiply();
    }
    constexpr std::size_t kStride = kBlock * sizeof(float);
    _tile_stored(0, sums, kStride);
    _tile_stored(1, sums + kColumns, kStride);
    _tile_stored(2, sums + next_rows, kStride);
    _tile_stored(3, sums + next_rows + kColumns, kStride);
    barrier();
}

template <int Number>
struct Register {
    static constexpr int number = Number;
};

// One tile of positions by two or four strips.
template <std::size_t Pairs, typename Chore>
void multiply_one(const SplitJob &job, std::size_t tile, Chore &chore) {
    float *sums = job.sums + tile * job.tile_rows * kBlock;
    barrier();
    begin<0>(job, sums);
    begin<1>(job, sums + kColumns);
    if constexpr (Pairs == 2) {
        begin<2>(job, sums + 2 * kColumns);
        begin<3>(job, sums + 3 * kColumns);
    }
    const std::uint8_t *x = job.activations + tile * job.steps * kStepBytes;
    const Line *w = job.weights;
    const std::size_t other = job.steps * kParts * 2 * kTileLines;
    const auto multiply = [&](auto activations, std::size_t part) {
        constexpr int kActivations = decltype(activations)::number;
        const Line *from = w + part * 2 * kTileLines;
        _tile_loadd(6, from, 64);
        multiply_tiles<Datatype::bf16, 0, kActivations, 6>();
        _tile_loadd(7, from + kTileLines, 64);
        multiply_tiles<Datatype::bf16, 1, kActivations, 7>();
        if constexpr (Pairs == 2) {
            _tile_loadd(6, from + other, 64);
            multiply_tiles<Datatype::bf16, 2, kActivations, 6>();
            _tile_loadd(7, from + other + kTileLines, 64);
            multiply_tiles<Datatype::bf16, 3, kActivations, 7>();
        }
        chore();
    };
    const Register<4> first;
    const Register<5> other_part;
    for (std::size_t s = 0; s < job.steps; ++s, x += kStepBytes, w += kParts * 2 * kTileLines) {
        _tile_loadd(4, x, 64);
        _tile_loadd(5, x + 2 * kTileBytes, 64);
        multiply(other_part, 0);
        _tile_loadd(5, x + kTileBytes, 64);
        multiply(other_part, 1);
        multiply(other_part, 0);
        multiply(first, 2);
        multiply(first, 1);
        multiply(first, 0);
    }
    constexpr std::size_t kStride = kBlock * sizeof(float);
    _tile_stored(0, sums, kStride);
    _tile_stored(1, sums + kColumns, kStride);
    if constexpr (Pairs == 2) {
        _tile_stored(2, sums + 2 * kColumns, kStride);
        _tile_stored(3, sums + 3 * kColumns, kStride);
    }
    barrier();
}

void multiply(const SplitJob &job) {
    const std::size_t pairs = (job.strips + 1) / 2, twos = job.tiles / 2, ones = job.tiles % 2;
    Chores chores(job, job.steps * kGroups * (twos * pairs + ones));
    for (std::size_t pair = 0; pair < pairs; ++pair) {
        for (std::size_t i = 0; i < twos; ++i) multiply_two(job, 2 * i, pair, chores);
    }
    if (ones) {
        if (pairs == 2) multiply_one<2>(job, job.tiles - 1, chores);
        else multiply_one<1>(job, job.tiles - 1, chores);
    }
    chores.splitting.advance(chores.splitting.left());
    chores.finish(chores.waiting.left);
}

}  // namespace

const SplitSet kSplitAmx = {enter, leave, split_row, split_panel, multiply};

}  // namespace sluice
