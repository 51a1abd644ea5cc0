// Finds the symbolic function of a torch op, and the facts about it. The tables are listed
// explicitly, one for each family's file, and not by static initialisers of our own, which linkers
// strip. convert/convert.cpp looks functions up, lower/ and record/ the facts (by traits_of() in
// program/run_node.h); qcdq/symbolic.h has the public side.
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

/// The facts about "aten::add" + overload "Tensor", whether or not it is convertible. A plugin's
/// rows add to qcdq's own. Where no row names the op: kNeverFold if its name speaks of quantising,
/// else kNone.
OpTraits op_traits(const std::string& op, const std::string& overload = "");

/// A row of an op that has no conversion.
constexpr Symbolic facts_of(const char* torch_op, OpTraits traits) {
  return {torch_op, 0, nullptr, nullptr, traits};
}
/// What a fake quantiser's row says.
inline constexpr OpTraits kFakeQuantizer = OpTraits::kNeverFold | OpTraits::kFakeQuantizes;

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
