// Finds the symbolic function of a torch op. The tables are listed explicitly, one for each
// family's file, and not by static initialisers of our own, which linkers strip.
// convert/convert.cpp looks rows up; qcdq/symbolic.h has the public side.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "qcdq/symbolic.h"

namespace qcdq {

/// The row for "aten::add" + overload "Tensor" at `opset`, or nullptr. `least_opset`, where given,
/// gets the least opset of any row for the op (0: no row at all), so that a refusal can name it.
const Symbolic* find_symbolic(const std::string& op, const std::string& overload, int64_t opset,
                              int64_t* least_opset = nullptr);

// The table at the end of each family's file. registry.cpp lists them once more.
std::span<const Symbolic> activations_symbolics();
std::span<const Symbolic> arithmetic_symbolics();
std::span<const Symbolic> attention_symbolics();
std::span<const Symbolic> comparisons_symbolics();
std::span<const Symbolic> convolutions_symbolics();
std::span<const Symbolic> creation_symbolics();
std::span<const Symbolic> indexing_symbolics();
std::span<const Symbolic> linear_symbolics();
std::span<const Symbolic> normalisation_symbolics();
std::span<const Symbolic> pooling_symbolics();
std::span<const Symbolic> quantized_decomposed_symbolics();
std::span<const Symbolic> quantizers_symbolics();
std::span<const Symbolic> reductions_symbolics();
std::span<const Symbolic> resize_symbolics();
std::span<const Symbolic> rnn_symbolics();
std::span<const Symbolic> scatter_symbolics();
std::span<const Symbolic> shapes_symbolics();
std::span<const Symbolic> sizes_symbolics();

}  // namespace qcdq
