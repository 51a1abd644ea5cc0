// Which of torch's operators a node of a .pt2 program calls. source/pt2/graph.cpp asks for each
// node, source/pt2/arguments.cpp makes the arguments.
#pragma once

#include <torch/csrc/jit/runtime/operator.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

namespace qcdq {

struct Pt2Op {
  std::string name;      // "aten::add"
  std::string overload;  // "Tensor", or empty

  /// From a node's target, "torch.ops.aten.add.Tensor"; throws std::runtime_error where that names
  /// no op.
  static Pt2Op of_target(const std::string& target);
  /// Whether it is one of the ops that only check sizes and values.
  bool computes_nothing() const;
};

/// The argument of that name among a node's inputs, or nullptr.
const nlohmann::json* pt2_given(const nlohmann::json& inputs, const std::string& name);

/// The operator that takes a node's inputs: the named overload, or its form with numbers where a
/// tensor argument is given as a number (x + 3). Throws std::runtime_error, naming op and overload,
/// where the process has none.
std::shared_ptr<torch::jit::Operator> pt2_operator(const Pt2Op& op, const nlohmann::json& inputs);

}  // namespace qcdq
