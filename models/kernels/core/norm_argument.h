// The layer norm that rows go through before a product, as Python gives it: a tuple of its weight, its bias and epsilon.
#pragma once

#include <optional>
#include <tuple>

#include "arguments.h"
#include "blocks.h"
#include "product.h"

namespace sluice {

using NormTuple = std::optional<std::tuple<nb::object, nb::object, float>>;

class NormArgument {
public:
    NormArgument(const NormTuple &norm, std::size_t channels) {
        if (!norm) return;
        weight_ = optional_floats(std::get<0>(*norm), "the norm's weight", channels, "channels");
        bias_ = optional_floats(std::get<1>(*norm), "the norm's bias", channels, "channels");
        const float epsilon = std::get<2>(*norm);
        if (!weight_.data || !bias_.data) reject("norm must have a weight and a bias");
        if (!(epsilon >= 0)) reject("epsilon must be a number and not negative");
        norm_.emplace(RowNorm{instruction_set_named(std::nullopt), weight_.data, bias_.data, epsilon});
    }

    void check_apart(const Result &y) const {
        y.check_apart(weight_.argument, "the norm's weight");
        y.check_apart(bias_.argument, "the norm's bias");
    }

    const RowNorm *get() const { return norm_ ? &*norm_ : nullptr; }

private:
    OptionalFloats weight_, bias_;
    std::optional<RowNorm> norm_;
};

// Rows for a product: those whose norm it does not do itself are normalised here.
class RowsForProduct {
public:
    RowsForProduct(const InputRows &x, std::size_t channels, bool norms) : rows_(x) {
        if (!x.norm || norms) return;
        normed_.emplace(x.count * channels);
        for (std::size_t i = 0; i < x.count; ++i) (*x.norm)(x.row(i), 1, channels, normed_->get() + i * channels);
        rows_ = {normed_->get(), x.count, channels};
    }

    const InputRows &rows() const { return rows_; }

private:
    InputRows rows_;
    std::optional<BlockOfFloats> normed_;
};

}  // namespace sluice
