// The table of what the quantisation passes know of ONNX ops: every row is an op of ONNX's with the
// inputs that the row speaks of, and no op stands there twice.
#include "symbolic/quantizer/onnx_ops.h"

#include <gtest/gtest.h>
#include <onnx/defs/schema.h>

#include <set>
#include <string>
#include <vector>

namespace qcdq {
namespace {

OnnxNode node_of(std::string op_type, std::string domain = "") {
  OnnxNode node;
  node.op_type = std::move(op_type);
  node.domain = std::move(domain);
  node.outputs = {"y"};
  return node;
}

TEST(OnnxOps, EveryRowIsAnOpOfOnnx) {
  std::set<std::string_view> seen;
  for (const OnnxOpFacts& row : onnx_op_rows()) {
    EXPECT_TRUE(seen.insert(row.op_type).second) << row.op_type;
    const auto* schema = onnx::OpSchemaRegistry::Schema(std::string(row.op_type), 21, "");
    ASSERT_NE(schema, nullptr) << row.op_type;
    if (row.takes_weight) {
      EXPECT_GE(schema->max_input(), 2) << row.op_type;
    }
    EXPECT_EQ(row.takes_bias, row.takes_weight && schema->max_input() == 3) << row.op_type;
    EXPECT_EQ(&onnx_op_facts(node_of(std::string(row.op_type))), &row);
  }
}

TEST(OnnxOps, WhatMovesElementsAndWhatTakesAWeight) {
  const auto among = [](const std::string& op, const std::vector<std::string>& ops) {
    return std::find(ops.begin(), ops.end(), op) != ops.end();
  };
  for (const OnnxOpFacts& row : onnx_op_rows()) {
    const std::string op(row.op_type);
    EXPECT_EQ(moves_elements(node_of(op)), among(op, {"MaxPool", "Reshape", "Transpose", "Squeeze",
                                                      "Flatten", "Unsqueeze", "Identity", "Slice"}))
        << op;
    EXPECT_EQ(row.takes_weight, among(op, {"Conv", "ConvTranspose", "Gemm", "MatMul"})) << op;
  }
  EXPECT_EQ(onnx_op_facts(node_of("Transpose")).moves, ElementMove::kTransposes);
  EXPECT_EQ(onnx_op_facts(node_of("Flatten")).moves, ElementMove::kReshapes);
  EXPECT_EQ(onnx_op_facts(node_of("MaxPool")).moves, ElementMove::kPicks);
  OnnxNode with_indices = node_of("MaxPool");
  with_indices.outputs = {"y", "indices"};
  EXPECT_FALSE(moves_elements(with_indices));
}

TEST(OnnxOps, OtherDomainsAndOtherOpsHaveNoFacts) {
  for (const OnnxNode& node : {node_of("Conv", "com.example"), node_of("Sin")}) {
    EXPECT_EQ(onnx_op_facts(node).int8, Int8Kernel::kUnlisted);
    EXPECT_FALSE(onnx_op_facts(node).takes_weight);
    EXPECT_FALSE(moves_elements(node));
  }
}

}  // namespace
}  // namespace qcdq
