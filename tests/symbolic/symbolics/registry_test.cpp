// The registry of symbolic functions: which row wins, and that the lookup by name finds what a scan
// of all rows finds. Also torch's promotion rules as symbolics/torch_rules.h has them.
#include "symbolic/symbolics/registry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "symbolic/graph/graph_builder.h"
#include "symbolic/symbolics/torch_rules.h"

namespace qcdq {
namespace {

// qcdq's own rows: this runs before any test registers rows of its own.
const std::vector<Symbolic> kOwnRows = all_symbolics();

TEST(TorchRules, PromotionIsTorchs) {
  EXPECT_EQ(promote_types(DType::kUInt8, DType::kInt8), DType::kInt16);
  EXPECT_EQ(promote_types(DType::kInt64, DType::kFloat16), DType::kFloat16);
  EXPECT_EQ(promote_types(DType::kBFloat16, DType::kFloat16), DType::kFloat32);
  EXPECT_EQ(promote_types(DType::kBool, DType::kUInt8), DType::kUInt8);
  EXPECT_EQ(result_type(DType::kInt32, 0.5), DType::kFloat32);
  EXPECT_EQ(result_type(DType::kFloat16, 0.5), DType::kFloat16);
  EXPECT_EQ(result_type(DType::kBool, 2), DType::kInt64);
  EXPECT_EQ(result_type(DType::kUInt8, 2), DType::kUInt8);
  OnnxGraph graph;
  graph.types["x"] = {DType::kFloat32, true, {2, 3}, {}};
  graph.types["i"] = {DType::kInt64, true, {3}, {}};
  graph.types["zero_dim"] = {DType::kFloat64, true, {}, {}};
  GraphBuilder::State state{graph, {}, "", "", "", nullptr};
  const GraphBuilder builder(state);
  EXPECT_EQ(result_type(builder, Value{"x"}, Value{"zero_dim"}), DType::kFloat32);
  EXPECT_EQ(result_type(builder, Value{"i"}, Value{"zero_dim"}), DType::kFloat64);
}

TEST(TorchRules, NumbersWrapAroundOrAreStoredAsInTorch) {
  EXPECT_EQ(cast_number(DType::kUInt8, 300), Number(int64_t{44}));
  EXPECT_EQ(cast_number(DType::kUInt8, -1), Number(int64_t{255}));
  EXPECT_EQ(cast_number(DType::kInt8, 200), Number(int64_t{-56}));
  EXPECT_EQ(cast_number(DType::kInt64, INT64_MIN), Number(INT64_MIN));
  EXPECT_EQ(cast_number(DType::kBool, 2), Number(int64_t{1}));
  EXPECT_EQ(cast_number(DType::kFloat16, 300), Number(int64_t{300}));
  EXPECT_EQ(stored_number(DType::kInt64, -1.9), Number(-1.0));
  EXPECT_EQ(stored_number(DType::kUInt8, -1), Number(int64_t{255}));
  EXPECT_EQ(stored_number(DType::kUInt8, 300), Number(int64_t{300}));
  EXPECT_EQ(stored_number(DType::kUInt8, INT64_MIN), Number(INT64_MIN));
  EXPECT_EQ(stored_number(DType::kInt8, -129), Number(int64_t{-129}));
  EXPECT_EQ(stored_number(DType::kBool, 0.5), Number(int64_t{1}));
  EXPECT_EQ(stored_number(DType::kFloat32, 0.5), Number(0.5));
}

std::vector<Value> first_function(GraphBuilder&, NodeArgs&) { return {}; }
std::vector<Value> second_function(GraphBuilder&, NodeArgs&) { return {}; }

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
  for (const Symbolic& row : kOwnRows) {
    EXPECT_TRUE(seen.emplace(row.torch_op, row.since_opset).second) << row.torch_op;
  }
  EXPECT_GT(seen.size(), 200U);
}

// What find_symbolic promises, as a scan of every row of one origin.
struct Scan {
  const Symbolic* exact = nullptr;
  const Symbolic* general = nullptr;
  std::vector<int64_t> opsets;  // of every row for the op

  Scan(std::span<const Symbolic> rows, const std::string& op, const std::string& overload,
       int64_t opset) {
    for (const Symbolic& row : rows) {
      const bool is_exact = row.torch_op == op + "." + overload;
      if (!is_exact && row.torch_op != op) continue;
      opsets.push_back(row.since_opset);
      if (row.since_opset > opset) continue;
      const Symbolic*& newest = is_exact ? exact : general;
      if (newest == nullptr || row.since_opset >= newest->since_opset) newest = &row;
    }
  }
  const Symbolic* row() const { return exact != nullptr ? exact : general; }
};

bool same_row(const Symbolic* a, const Symbolic* b) {
  if (a == nullptr || b == nullptr) return a == b;
  return a->torch_op == b->torch_op && a->since_opset == b->since_opset &&
         a->function == b->function && a->onnx_op == b->onnx_op;
}

void expect_as_scanned(const std::vector<Symbolic>& rows, const std::string& op,
                       const std::string& overload) {
  const std::span<const Symbolic> all(rows);
  for (int64_t opset = 9; opset <= 26; ++opset) {
    const Scan own(all.first(kOwnRows.size()), op, overload, opset);
    const Scan user(all.subspan(kOwnRows.size()), op, overload, opset);
    int64_t least = -1;
    const Symbolic* found = find_symbolic(op, overload, opset, &least);
    EXPECT_TRUE(same_row(found, user.row() != nullptr ? user.row() : own.row()))
        << op << " ." << overload << " at opset " << opset;
    std::vector<int64_t> opsets = own.opsets;
    opsets.insert(opsets.end(), user.opsets.begin(), user.opsets.end());
    EXPECT_EQ(least, opsets.empty() ? 0 : *std::min_element(opsets.begin(), opsets.end())) << op;
  }
}

TEST(Registry, EveryRowIsFoundAsByAScan) {
  register_symbolics({{"test::scanned", 12, first_function},
                      {"test::scanned", 18, second_function},
                      {"test::scanned.Scalar", 14, second_function},
                      {"test::scanned.Scalar", 14, first_function, "Relu"},
                      {"test::scanned.Scalar", 11, second_function}});
  // Of an op that qcdq knows from opset 10 on, for an overload that it doesn't name.
  register_symbolics({{"aten::lift_fresh.test", 16, second_function}});
  const std::vector<Symbolic> rows = all_symbolics();
  ASSERT_GE(rows.size(), kOwnRows.size() + 6);
  for (const Symbolic& row : rows) {
    const std::string name = row.torch_op;
    expect_as_scanned(rows, name, "");
    expect_as_scanned(rows, name, "no_such_overload");
    const size_t dot = name.rfind('.');
    if (dot == std::string::npos) continue;
    expect_as_scanned(rows, name.substr(0, dot), name.substr(dot + 1));
    expect_as_scanned(rows, name.substr(0, dot), "");
  }
}

}  // namespace
}  // namespace qcdq
