// What becomes of each torch op that takes or makes a quantised tensor; lower/quantized_tensors.cpp
// applies the rules in the order of the graph.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "symbolic/program/program.h"

namespace qcdq {

/// Scale, zero point and element type of a quantised tensor (per tensor).
struct QuantizedType {
  double scale = 1;
  int64_t zero_point = 0;
  at::ScalarType dtype = at::kQUInt8;
  bool per_channel = false;  // then the numbers above mean nothing

  bool operator==(const QuantizedType&) const = default;
};

/// Closed interval of the codes of quint8, qint8 or qint32.
std::pair<int64_t, int64_t> code_range(at::ScalarType dtype);

/// Replaces quantised values by float ones of the same numbers. Throws UnsupportedOp, naming the
/// op, where an op has no rule.
class QuantizedRules {
 public:
  explicit QuantizedRules(Program& program) : program_(program), graph_(*program.graph) {}
  /// Rewrites one node; its inputs were rewritten before. May destroy it.
  void apply(torch::jit::Node* node);
  /// Removes dequantize ops and checks the graph's outputs.
  void finish();

 private:
  using Node = torch::jit::Node;
  using JitValue = torch::jit::Value;
  using Rule = void (QuantizedRules::*)(Node*);
  static Rule find_rule(const Node& node);

  // Rules.
  void quantize(Node* node);
  void quantize_channels(Node* node);
  void linear(Node* node);
  void convolution(Node* node);
  void binary(Node* node);
  void scalar(Node* node);
  void concatenate(Node* node);
  void batch_norm(Node* node);
  void instance_norm(Node* node);
  void unary(Node* node);
  void keeps_params(Node* node);
  void clamps(Node* node);
  void moves(Node* node);
  void fixed_params(Node* node);
  void list(Node* node);
  void dynamic(Node* node);
  void query(Node* node);
  void answer(Node* node);
  void dequantize(Node* node);
  void constant(Node* node);

  /// The type of a value that has to be quantised, per tensor.
  QuantizedType input_type(Node* node, size_t index = 0) const;
  QuantizedType output_type(Node* node, const char* scale, const char* zero_point) const;
  double number(Node* node, const char* name) const;
  JitValue* call(Node* origin, const char* op, std::vector<torch::jit::NamedValue> arguments);
  JitValue* fake_quantized(Node* origin, JitValue* value, const QuantizedType& type);
  /// A constant quantised tensor as codes -> dequantize.
  JitValue* dequantized(Node* origin, const at::Tensor& tensor, const std::string& name);
  JitValue* bias_of(Node* origin, const std::optional<at::Tensor>& bias);
  /// `value` (quantised to `type`, after a Relu where the op's name has one) in place of the node.
  void replace(Node* node, JitValue* value, const QuantizedType& type);
  void name_tensor(Node* origin, const at::Tensor& tensor, const std::string& name);
  [[noreturn]] void refuse(Node* node, const std::string& argument, const std::string& reason,
                           const std::string& hint = "") const;

  Program& program_;
  torch::jit::Graph& graph_;
  std::unordered_map<const JitValue*, QuantizedType> types_;
  std::vector<Node*> dequantizes_;
};

}  // namespace qcdq
