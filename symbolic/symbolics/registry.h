// The tables of symbolic functions, listed explicitly (no static initialisers of our own: linkers
// strip them).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "qcdq/symbolic.h"

namespace qcdq {

/// The row for "aten::add" + overload "Tensor" at `opset`, or nullptr. `least_opset`, where given,
/// gets the least opset of any row for the op (0: no row at all), so that a refusal can name it.
const Symbolic* find_symbolic(const std::string& op, const std::string& overload, int64_t opset,
                              int64_t* least_opset = nullptr);

// One table per op family (symbolics/*.cpp).
std::span<const Symbolic> quant_symbolics();
std::span<const Symbolic> quantized_symbolics();
std::span<const Symbolic> elementwise_symbolics();
std::span<const Symbolic> activation_symbolics();
std::span<const Symbolic> nn_symbolics();
std::span<const Symbolic> pool_symbolics();
std::span<const Symbolic> shape_symbolics();
std::span<const Symbolic> size_symbolics();
std::span<const Symbolic> reduce_symbolics();
std::span<const Symbolic> attention_symbolics();
std::span<const Symbolic> rnn_symbolics();
std::span<const Symbolic> resize_symbolics();
std::span<const Symbolic> create_symbolics();
std::span<const Symbolic> indexing_symbolics();
std::span<const Symbolic> scatter_symbolics();

}  // namespace qcdq
