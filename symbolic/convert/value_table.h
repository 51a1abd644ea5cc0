// Which ONNX value stands for which torch::jit::Value: convert.cpp fills the table in, NodeArgs
// reads it.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "qcdq/symbolic.h"
#include "symbolic/program/program.h"

namespace qcdq {

/// The values converted so far. Tensor constants become initializers at their first use.
class ValueTable {
 public:
  ValueTable(const Program& program, GraphBuilder& graph) : program_(program), graph_(graph) {}

  void set(const torch::jit::Value* value, Value onnx) { values_[value] = std::move(onnx); }
  void set_list(const torch::jit::Value* value, std::vector<Value> onnx) {
    lists_[value] = std::move(onnx);
  }
  bool contains(const torch::jit::Value* value) const { return values_.contains(value); }
  /// The ONNX value of a Tensor, or of an int or int[] known only at run time. A constant number is
  /// 0-d in torch's default type of its kind, int64 or float32; a constant float[] 1-d float64.
  /// Throws std::logic_error where there is none.
  Value get(const torch::jit::Value* value);
  /// The elements of a Tensor[] (or of any list whose elements are converted), an absent Value for
  /// None; nothing where it is no such list.
  std::optional<std::vector<Value>> list(const torch::jit::Value* value);
  const Program& program() const { return program_; }
  GraphBuilder& graph() { return graph_; }

 private:
  Value initializer(const at::Tensor& tensor);

  const Program& program_;
  GraphBuilder& graph_;
  std::unordered_map<const torch::jit::Value*, Value> values_;
  std::unordered_map<const torch::jit::Value*, std::vector<Value>> lists_;
  std::unordered_multimap<const void*, std::pair<at::Tensor, Value>>
      initializers_;  // by data pointer
};

/// Text of a constant for a refusal: at most 60 characters.
std::string short_text(const torch::jit::Value* value);

}  // namespace qcdq
