// How large tiles are, with the registers of an instruction set.
#pragma once

#include <cstddef>

namespace sluice {
namespace {

// With 16 registers 6 × 2 sums leave room for the weights and one broadcast; with 32, 6 × 4 or 8 × 3.
constexpr bool kManyRegisters = MANY_REGISTERS;
constexpr std::size_t kVectors = kManyRegisters ? 4 : 2;
constexpr std::size_t most_rows(std::size_t vectors) { return vectors == kVectors ? 6 : 8; }

}  // namespace
}  // namespace sluice
