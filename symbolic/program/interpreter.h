// The recorder's interpreter: one run of a lowered graph on example inputs, node by node, not
// through the optimising executor. record.cpp compares two of its runs.
#pragma once

#include <ATen/core/stack.h>
#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace qcdq {

/// Element type and shape of a tensor value; a dimension that differed between two visits of the
/// value (in a loop) is -1.
struct Observed {
  at::ScalarType dtype = at::ScalarType::Undefined;
  bool ranked = false;
  std::vector<int64_t> dims;

  static Observed of(const at::Tensor& tensor);
  void merge(const Observed& other);
};

struct Run {
  std::unordered_map<size_t, Observed> types;  // by Value::unique(), which is never used again
  /// Per If: 1 = then, 2 = else, 3 = both were taken. Per Loop: its trip count, -1 where it varied.
  std::unordered_map<const torch::jit::Node*, int64_t> control;
  /// Per aten::as_strided: it gave its input as it is, every element in its place.
  std::unordered_map<const torch::jit::Node*, bool> strided_identity;
  std::vector<c10::IValue> outputs;
};

/// The node that failed, and what it threw.
struct RunFailure {
  const torch::jit::Node* node = nullptr;
  std::string message;
};

/// Sees each op run, but for branches and loops. What it throws counts as a failure of the op.
class NodeWatcher {
 public:
  virtual ~NodeWatcher() = default;
  virtual void before(const torch::jit::Node& node, const torch::jit::Stack& inputs) = 0;
  /// May replace outputs.
  virtual void after(const torch::jit::Node& node, const torch::jit::Stack& inputs,
                     torch::jit::Stack& outputs) = 0;
};

/// Runs `graph` on `inputs`; values are freed after their last use. Where a node throws, `failure`
/// names it and holds its message, and the run holds what was seen until then.
Run interpret(torch::jit::Graph& graph, const std::vector<c10::IValue>& inputs,
              std::optional<RunFailure>& failure);
/// The same, watched.
Run interpret(torch::jit::Graph& graph, const std::vector<c10::IValue>& inputs,
              std::optional<RunFailure>& failure, NodeWatcher& watcher);

}  // namespace qcdq
