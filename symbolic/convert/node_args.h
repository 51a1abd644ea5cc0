// NodeArgs' state and the table of values that it shares with convert.cpp: which ONNX value stands
// for which torch::jit::Value.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "qcdq/symbolic.h"
#include "symbolic/program/program.h"

namespace qcdq {

/// ONNX's number for a torch element type; kUndefined where ONNX has none (complex, quantised
/// types).
DType dtype_of(at::ScalarType type);
/// Torch's element type for ONNX's number; nothing for kString and kUndefined.
std::optional<at::ScalarType> scalar_type_of(DType dtype);
/// Shares the tensor's storage where it is dense, row-major and on the CPU; else `produce` makes a
/// dense copy when it is needed. Throws std::invalid_argument where ONNX has no such element type.
TensorData tensor_data(const at::Tensor& tensor);
/// "prim::Constant" values and lists of them as an IValue; nothing where a value is known only at
/// run time.
std::optional<c10::IValue> constant_ivalue(const torch::jit::Value* value);

/// The values converted so far. Tensor constants become initializers at their first use.
class ValueTable {
 public:
  ValueTable(const Program& program, GraphBuilder& graph) : program_(program), graph_(graph) {}

  void set(const torch::jit::Value* value, Value onnx) { values_[value] = std::move(onnx); }
  void set_list(const torch::jit::Value* value, std::vector<Value> onnx) {
    lists_[value] = std::move(onnx);
  }
  bool contains(const torch::jit::Value* value) const { return values_.contains(value); }
  /// The ONNX value of a Tensor, or of an int or int[] known only at run time; a constant float[]
  /// is 1-d float64. Throws
  /// std::logic_error where there is none.
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

struct NodeArgs::State {
  State(torch::jit::Node* node, ValueTable& table);

  torch::jit::Node* node;
  ValueTable& table;
  const c10::FunctionSchema* schema;
  std::string op;          // aten::add.Tensor
  std::vector<bool> read;  // per schema argument
  /// First argument that was neither read nor ignored; nothing where all were.
  std::optional<size_t> unread() const;
  /// Short text of an argument's value, for messages.
  std::string value_text(size_t argument) const;
};

/// Text of a constant for a refusal: at most 60 characters.
std::string short_text(const torch::jit::Value* value);

}  // namespace qcdq
