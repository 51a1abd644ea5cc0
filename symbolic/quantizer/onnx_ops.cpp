// The table behind onnx_ops.h. What ORT does was measured with 1.31; the tests in
// tests/python/test_fusion.py compare it with the graph that ORT writes.
#include "symbolic/quantizer/onnx_ops.h"

#include <unordered_map>

namespace qcdq {

namespace {

using enum ElementMove;
using enum Int8Kernel;

constexpr OnnxOpFacts layer(std::string_view op_type, Int8Kernel int8, bool takes_bias) {
  return {op_type, int8, kComputes, true, takes_bias};
}

constexpr OnnxOpFacts kRows[] = {
    layer("Conv", kConv, true),
    layer("Gemm", kMatrix, true),
    layer("MatMul", kMatrix, false),
    layer("ConvTranspose", kFloatOnly, true),
    {"Add", kAllInputs},
    {"Mul", kAllInputs},
    {"Concat", kAllInputs},
    {"LeakyRelu", kOneInput},
    {"Sigmoid", kOneInput},
    {"Softmax", kOneInput},
    {"AveragePool", kOneInput},
    {"GlobalAveragePool", kOneInput},
    {"MaxPool", kPool, kPicks},
    {"BatchNormalization", kFloatOnly},
    {"Relu", kFloatOnly},
    {"Tanh", kFloatOnly},
    {"ReduceMean", kFloatOnly},
    {"LSTM", kFloatOnly},
    {"GRU", kFloatOnly},
    {"Sub", kFloatOnly},
    {"Div", kFloatOnly},
    {"HardSwish", kFloatOnly},
    {"LayerNormalization", kFloatOnly},
    {"Reshape", kUnlisted, kReshapes},
    {"Flatten", kUnlisted, kReshapes},
    {"Squeeze", kUnlisted, kReshapes},
    {"Unsqueeze", kUnlisted, kReshapes},
    {"Identity", kUnlisted, kReshapes},
    {"Transpose", kUnlisted, kTransposes},
    {"Slice", kUnlisted, kPicks},
};

}  // namespace

std::span<const OnnxOpFacts> onnx_op_rows() { return kRows; }

const OnnxOpFacts& onnx_op_facts(const OnnxNode& node) {
  static const OnnxOpFacts kNoFacts;
  static const auto kByName = [] {
    std::unordered_map<std::string_view, const OnnxOpFacts*> rows;
    for (const OnnxOpFacts& row : kRows) rows.emplace(row.op_type, &row);
    return rows;
  }();
  const auto found = node.domain.empty() ? kByName.find(node.op_type) : kByName.end();
  return found == kByName.end() ? kNoFacts : *found->second;
}

bool moves_elements(const OnnxNode& node) {
  return onnx_op_facts(node).moves != kComputes && node.outputs.size() == 1;
}

}  // namespace qcdq
