// Runs single nodes of a torch::jit::Graph on concrete values, and says where a node stands in the
// user's model. Used by lower/fold_constants.cpp (constants) and program/interpreter.cpp (example
// inputs).
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <string>

#include "qcdq/symbolic.h"

namespace qcdq {

/// Runs a node that has no blocks; `stack` holds its inputs and the result its outputs, one value
/// each. Goes to the operator itself, not through the optimising executor. Throws what the op
/// throws, or std::runtime_error where no operator is registered for the node.
torch::jit::Stack run_node(torch::jit::Node& node, torch::jit::Stack stack);

/// The value of a constant, of a list or tuple of constants; nothing where it depends on inputs.
std::optional<c10::IValue> constant_value(const torch::jit::Value* value);

/// "aten::add.Tensor"; "prim::If".
std::string op_name(const torch::jit::Node& node);

/// What the rows of symbolics/ say about the node's op (op_traits() of its name and overload).
OpTraits traits_of(const torch::jit::Node& node);

/// "layer1.0.conv1, model.py:12"; parts that were not recorded are left out, "" where none was.
std::string node_location(const torch::jit::Node& node);

/// Throws UnsupportedOp for `node`: its op and place, what can't be represented and what to do.
[[noreturn]] void refuse_node(const torch::jit::Node& node, std::string reason,
                              std::string hint = "", std::string argument = "",
                              std::string value = "");
/// First line of an exception's text, without a C++ or TorchScript backtrace.
std::string first_line(const std::exception& error);

}  // namespace qcdq
