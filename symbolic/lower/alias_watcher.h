// What a run of the graph shows of memory: which results share it with their inputs, and which
// writes read what they write. lower/decide_aliases.cpp asks.
#pragma once

#include <ATen/core/Tensor.h>

#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "qcdq/symbolic.h"
#include "symbolic/program/interpreter.h"

namespace qcdq {

/// What one or more runs have seen of a node.
struct Seen {
  bool shared = false;
  bool copied = false;
  bool identity = true;  // as_strided that gives its input as it is
  bool resized = false;
  std::vector<int64_t> sizes;
  int64_t rank = 0;  // of the input
};

class AliasWatcher : public NodeWatcher {
 public:
  /// Watches the ops in `asked`; the constants in `copied` are copied for the run, which may write
  /// to them.
  AliasWatcher(std::unordered_set<const torch::jit::Node*> asked,
               std::unordered_set<const torch::jit::Node*> copied)
      : asked_(std::move(asked)), copied_(std::move(copied)) {}

  void before(const torch::jit::Node& node, const torch::jit::Stack& inputs) override;
  void after(const torch::jit::Node& node, const torch::jit::Stack& inputs,
             torch::jit::Stack& outputs) override;

  /// Null where no run has reached the node.
  const Seen* find(const torch::jit::Node* node) const;
  void refuse(const torch::jit::Node& node, const char* reason, const char* hint);
  /// Throws UnsupportedOp where there are some.
  void throw_refusals() const;

 private:
  void check_target(const torch::jit::Node& node, const at::Tensor& target);
  void check_operand(const torch::jit::Node& node, const at::Tensor& target,
                     const at::Tensor& operand);

  std::unordered_set<const torch::jit::Node*> asked_;
  std::unordered_set<const torch::jit::Node*> copied_;
  std::unordered_map<const torch::jit::Node*, Seen> seen_;
  std::unordered_set<const torch::jit::Node*> refused_;
  std::vector<UnsupportedOp::Details> refusals_;
};

}  // namespace qcdq
