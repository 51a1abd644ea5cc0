// The registry of symbolic functions, and torch's promotion rules as symbolics/onnx_forms.h has
// them.
#include "symbolic/symbolics/registry.h"

#include <gtest/gtest.h>

#include <set>

#include "symbolic/graph/graph_builder.h"
#include "symbolic/symbolics/onnx_forms.h"

namespace qcdq {
namespace {

TEST(VersionedOps, PromotionIsTorchs) {
  EXPECT_EQ(promote(DType::kUInt8, DType::kInt8), DType::kInt16);
  EXPECT_EQ(promote(DType::kInt64, DType::kFloat16), DType::kFloat16);
  EXPECT_EQ(promote(DType::kBFloat16, DType::kFloat16), DType::kFloat32);
  EXPECT_EQ(promote(DType::kBool, DType::kUInt8), DType::kUInt8);
  EXPECT_EQ(result_type(DType::kInt32, false), DType::kFloat32);
  EXPECT_EQ(result_type(DType::kFloat16, false), DType::kFloat16);
  EXPECT_EQ(result_type(DType::kBool, true), DType::kInt64);
  OnnxGraph graph;
  graph.types["x"] = {DType::kFloat32, true, {2, 3}, {}};
  graph.types["i"] = {DType::kInt64, true, {3}, {}};
  graph.types["zero_dim"] = {DType::kFloat64, true, {}, {}};
  GraphBuilder::State state{graph, {}, "", "", "", nullptr};
  const GraphBuilder builder(state);
  EXPECT_EQ(result_type(builder, Value{"x"}, Value{"zero_dim"}), DType::kFloat32);
  EXPECT_EQ(result_type(builder, Value{"i"}, Value{"zero_dim"}), DType::kFloat64);
}

Values first_function(GraphBuilder&, NodeArgs&) { return {}; }
Values second_function(GraphBuilder&, NodeArgs&) { return {}; }

TEST(Registry, NewestRowThatTheOpsetAllowsWins) {
  register_symbolics(
      {{"test::versioned", 13, first_function}, {"test::versioned", 18, second_function}});
  int64_t least = 0;
  EXPECT_EQ(find_symbolic("test::versioned", "", 12, &least), nullptr);
  EXPECT_EQ(least, 13);
  EXPECT_EQ(find_symbolic("test::versioned", "", 17)->function, &first_function);
  EXPECT_EQ(find_symbolic("test::versioned", "Tensor", 26)->function, &second_function);
  EXPECT_EQ(find_symbolic("test::unknown", "", 21, &least), nullptr);
  EXPECT_EQ(least, 0);
}

TEST(Registry, OverloadsComeFirstAndUserRowsWin) {
  register_symbolics({{"test::op", 10, first_function}, {"test::op.Scalar", 10, second_function}});
  EXPECT_EQ(find_symbolic("test::op", "Scalar", 21)->function, &second_function);
  EXPECT_EQ(find_symbolic("test::op", "Tensor", 21)->function, &first_function);
  const Symbolic* own = find_symbolic("aten::lift_fresh", "", 21);
  ASSERT_NE(own, nullptr);
  register_symbolics({{"aten::lift_fresh", 10, first_function}});
  EXPECT_EQ(find_symbolic("aten::lift_fresh", "", 21)->function, &first_function);
}

TEST(Registry, NoRowTwice) {
  std::set<std::pair<std::string, int>> seen;
  for (const auto table :
       {quant_symbolics(), elementwise_symbolics(), activation_symbolics(), nn_symbolics(),
        pool_symbolics(), shape_symbolics(), reduce_symbolics()}) {
    for (const Symbolic& row : table) {
      EXPECT_TRUE(seen.emplace(row.torch_op, row.since_opset).second) << row.torch_op;
    }
  }
  EXPECT_GT(seen.size(), 150U);
}

}  // namespace
}  // namespace qcdq
