// The passes of symbolic/qdq/ and values that the body of an If, Loop or Scan uses from outside:
// they keep their value, their type and a producer. Each test looks at the same net without the
// body too, where the pass does what it is there for.
#include <gtest/gtest.h>

#include <set>

#include "tests/symbolic/qdq/qdq_net.h"

namespace qcdq::testing {
namespace {

/// if_out = condition ? Abs(value) : Neg(value)
void use_in_bodies(Net& net, const std::string& value) {
  const auto body = [&](const char* op, const std::string& out) {
    auto graph = std::make_shared<OnnxGraph>();
    OnnxNode& node = graph->nodes.emplace_back();
    node.op_type = op;
    node.name = out + "/" + op;
    node.inputs = {value};
    node.outputs = graph->outputs = {out};
    return Subgraph{graph};
  };
  net.input("condition", {});
  net.graph.types["condition"].dtype = DType::kBool;
  net.node("If", {"condition"}, "if_out",
           {{"then_branch", body("Abs", "abs_out")}, {"else_branch", body("Neg", "neg_out")}});
  net.output("if_out");
}

/// Runs the passes; what each node uses, in bodies too, is then made before it.
void run(Net& net, std::initializer_list<const char*> outputs) {
  net.run(outputs);
  std::set<std::string> made(net.graph.inputs.begin(), net.graph.inputs.end());
  for (const auto& [name, data] : net.graph.initializers) made.insert(name);
  for (const OnnxNode& node : net.graph.nodes) {
    node.for_each_use([&](const std::string& value) {
      EXPECT_TRUE(made.contains(value)) << node.name << " uses " << value << "\n"
                                        << to_text(net.graph);
    });
    made.insert(node.outputs.begin(), node.outputs.end());
  }
}

/// The value that the bodies of the net's If use.
std::string used_in_body(Net& net) {
  std::string used;
  net.only("If").for_each_use([&](const std::string& value) { used = value; });
  return used;
}

TEST(Bodies, AReluBeforeAQuantizerStays) {
  for (const bool used : {false, true}) {
    Net net({1, 4});
    net.node("Relu", {"x"}, "r");
    net.quantizer("r", "y", 0.5f, 0);
    if (used) use_in_bodies(net, "r");
    run(net, {"y"});
    EXPECT_EQ(net.ops(), used ? (Ops{"Relu", "QuantizeLinear", "DequantizeLinear", "If"})
                              : (Ops{"QuantizeLinear", "DequantizeLinear"}));
  }
}

TEST(Bodies, Int8CodesStayInt8) {
  for (const bool used : {false, true}) {
    Net net({1, 4});
    net.quantizer("x", "y", 0.5f, 0, DType::kInt8);
    if (used) use_in_bodies(net, "y_q");
    run(net, {"y"});
    EXPECT_EQ(net.graph.type("y_q").dtype, used ? DType::kInt8 : DType::kUInt8);
    EXPECT_EQ(net.values(net.only("QuantizeLinear").inputs[2]), (Numbers{used ? 0.0 : 128.0}));
  }
}

TEST(Bodies, BatchNormalizationStaysBehindAUsedLayer) {
  for (const bool used : {false, true}) {
    Net net({1, 2, 4, 4});
    net.weight("w", {2, 2, 1, 1}, {1, 2, 3, 4}, {0.5f});
    net.node("Conv", {"x", "w"}, "c");
    net.batchnorm("c", "y", {1, 2}, {0, 0}, {0, 0}, {1, 1});
    if (used) use_in_bodies(net, "c");
    run(net, {"y"});
    EXPECT_EQ(net.ops(), used ? (Ops{"DequantizeLinear", "Conv", "BatchNormalization", "If"})
                              : (Ops{"DequantizeLinear", "Conv"}));
  }
}

TEST(Bodies, AnIdentityIsSeenThrough) {
  Net net({1, 4});
  net.node("Relu", {"x"}, "r");
  net.node("Identity", {"r"}, "i");
  use_in_bodies(net, "i");
  run(net, {});
  EXPECT_EQ(net.ops(), (Ops{"Relu", "If"}));
  EXPECT_EQ(used_in_body(net), "r");
}

TEST(Bodies, AWeightsQuantizerAndItsViewAreKeptForThem) {
  Net net({1, 2});
  net.constant("w", floats({3, 2}, {0.25f, -0.75f, 9.0f, -9.0f, 1, 2}));
  net.quantizer("w", "wq", 0.5f, 0, DType::kInt8, {-3, 3});
  net.node("Transpose", {"wq"}, "wt", {{"perm", std::vector<int64_t>{1, 0}}});
  net.node("Gemm", {"x", "wt"}, "y");
  use_in_bodies(net, "wt");
  run(net, {"y"});
  const auto used = constant_values(net.graph, GraphIndex(net.graph), used_in_body(net));
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(*used, (Numbers{0, 1.5, 1, -1, -1.5, 1.5}));
}

TEST(Bodies, ScalesOfAUsedWeightStay) {
  // Folding a factor into the weight must not change what the body computes with.
  Net net({1, 2, 4, 4});
  net.weight("w", {2, 2, 1, 1}, {1, 2, 3, 4}, {0.5f});
  net.node("Conv", {"x", "w"}, "c");
  net.batchnorm("c", "y", {1, 2}, {0, 0}, {0, 0}, {1, 1});
  use_in_bodies(net, "w");
  run(net, {"y"});
  const auto used = constant_values(net.graph, GraphIndex(net.graph), used_in_body(net));
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(*used, (Numbers{0.5, 1, 1.5, 2}));
  EXPECT_EQ(net.values(net.producer(net.only("Conv").inputs[1]).inputs[1]), (Numbers{0.5, 1}));
}

TEST(Bodies, NamesOfABodyAreNotGivenAgain) {
  Net net({1, 4});
  net.constant("a_scale_1", floats({}, {0.5f}));
  net.constant("a_zero_point_1", pack_integers(DType::kUInt8, {}, {3}));
  net.node("QuantizeLinear", {"x", "a_scale_1", "a_zero_point_1"}, "q");
  net.graph.types["q"] = {DType::kUInt8, false, {}, {}};
  net.node("DequantizeLinear", {"q", "a_scale_1", "a_zero_point_1"}, "y");
  auto body = std::make_shared<OnnxGraph>();
  body->initializers["a_scale"] = floats({}, {7});
  body->outputs = {"a_scale"};
  net.input("condition", {});
  net.graph.types["condition"].dtype = DType::kBool;
  net.node("If", {"condition"}, "if_out",
           {{"then_branch", Subgraph{body}}, {"else_branch", Subgraph{body}}});
  run(net, {"y", "if_out"});
  EXPECT_EQ(net.only("QuantizeLinear").inputs,
            (std::vector<std::string>{"x", "a_scale_1", "a_zero_point"}));
}

}  // namespace
}  // namespace qcdq::testing
