// OnnxGraph: names, uses, rewrites, text; and the value types of qcdq/symbolic.h.
#include "symbolic/graph/onnx_graph.h"

#include "tests/symbolic/file/file_fixture.h"

namespace qcdq {
namespace {

OnnxNode node(const std::string& op, std::vector<std::string> inputs,
              std::vector<std::string> outputs, Attributes attributes = {}) {
  OnnxNode made;
  made.op_type = op;
  made.name = outputs[0] + "/" + op;
  made.inputs = std::move(inputs);
  made.outputs = std::move(outputs);
  made.attributes = std::move(attributes);
  return made;
}

// x -> Relu -> a -> Neg -> y, with a weight w added in between.
OnnxGraph small_graph() {
  OnnxGraph graph;
  graph.inputs = {"x"};
  graph.outputs = {"y"};
  graph.types["x"] = {DType::kFloat32, true, {-1, 3}, {"N", ""}};
  graph.types["y"] = {DType::kFloat32, true, {2, 3}, {}};
  graph.initializers["w"] = TensorData::from<float>(DType::kFloat32, {3}, {1, -0.5F, 0.1F});
  graph.nodes.push_back(node("Relu", {"x"}, {"a"}));
  graph.nodes.push_back(node("Add", {"a", "w"}, {"b"}));
  graph.nodes.push_back(node("LeakyRelu", {"b"}, {"y"}, {{"alpha", 0.1F}}));
  return graph;
}

TEST(OnnxGraph, UniqueNamesNeverRepeat) {
  OnnxGraph graph = small_graph();
  EXPECT_EQ(graph.unique_name("x"), "x_1");
  EXPECT_EQ(graph.unique_name("x"), "x_2");
  EXPECT_EQ(graph.unique_name("w"), "w_1");
  EXPECT_EQ(graph.unique_name("a/Relu"), "a/Relu_1");
  EXPECT_EQ(graph.unique_name("fresh"), "fresh");
  EXPECT_EQ(graph.unique_name("fresh_1"), "fresh_1");
  EXPECT_EQ(graph.unique_name("fresh"), "fresh_2");
  EXPECT_EQ(graph.unique_name(""), "value");
}

TEST(OnnxGraph, TextShowsTypesConstantsAndAttributes) {
  EXPECT_EQ(to_text(small_graph()),
            "input %x: float32[N,3]\n"
            "%a = Relu(%x)\n"
            "%w: float32[3] = {1, -0.5, 0.1}\n"
            "%b = Add(%a, %w)\n"
            "%y = LeakyRelu[alpha=0.1](%b)\n"
            "output %y: float32[2,3]\n");
}

TEST(OnnxGraph, TextLeavesLargeConstantsOut) {
  OnnxGraph graph;
  graph.outputs = {"w"};
  graph.initializers["w"] =
      TensorData::from<int8_t>(DType::kInt8, {3, 3}, std::vector<int8_t>(9, 1));
  EXPECT_EQ(to_text(graph), "%w: int8[3,3]\noutput %w: int8[3,3]\n");
}

TEST(OnnxGraph, IndexCountsOutputsAsUses) {
  OnnxGraph graph = small_graph();
  graph.outputs.push_back("a");
  const GraphIndex index(graph);
  EXPECT_EQ(index.uses("a"), 2U);
  EXPECT_EQ(index.consumers("a").size(), 1U);
  EXPECT_EQ(index.producer("a")->op_type, "Relu");
  EXPECT_EQ(index.producer("x"), nullptr);
  EXPECT_EQ(index.uses("nothing"), 0U);
  EXPECT_TRUE(index.consumers("y").empty());
}

TEST(OnnxGraph, ReplaceUsesRewiresNodes) {
  OnnxGraph graph = small_graph();
  replace_uses(graph, "a", "x");
  remove_dead(graph);
  EXPECT_EQ(graph.nodes.size(), 2U);
  EXPECT_EQ(graph.nodes.front().inputs[0], "x");
}

TEST(OnnxGraph, ReplaceUsesKeepsTheNameOfAnOutput) {
  OnnxGraph graph = small_graph();
  replace_uses(graph, "y", "b");
  remove_dead(graph);
  ASSERT_EQ(graph.nodes.size(), 2U);
  EXPECT_EQ(graph.nodes.back().op_type, "Add");
  EXPECT_EQ(graph.nodes.back().outputs[0], "y");
  EXPECT_EQ(graph.outputs, std::vector<std::string>{"y"});
}

TEST(OnnxGraph, ReplaceUsesOfAnOutputByAnInputMakesAnIdentity) {
  OnnxGraph graph = small_graph();
  replace_uses(graph, "y", "x");
  remove_dead(graph);
  ASSERT_EQ(graph.nodes.size(), 1U);
  EXPECT_EQ(graph.nodes.back().op_type, "Identity");
  EXPECT_EQ(graph.nodes.back().inputs[0], "x");
  EXPECT_EQ(graph.nodes.back().outputs[0], "y");
}

TEST(OnnxGraph, RemoveDeadDropsNodesAndInitializers) {
  OnnxGraph graph = small_graph();
  graph.outputs = {"a"};
  remove_dead(graph);
  EXPECT_EQ(graph.nodes.size(), 1U);
  EXPECT_TRUE(graph.initializers.empty());
}

const OnnxGraph& body(const OnnxNode& node, const char* attribute) {
  return *std::get<Subgraph>(*node.find(attribute)).graph;
}

TEST(Subgraphs, TextIndentsBodiesBelowTheirNode) {
  EXPECT_EQ(to_text(if_graph()),
            "input %x: float32[2]\n"
            "input %condition: bool[]\n"
            "%hidden = Exp(%x)\n"
            "%bias: float32[2] = {0.5, -1}\n"
            "%y = If(%condition)\n"
            "  then_branch:\n"
            "    %sum = Add(%x, %bias)\n"
            "    %positive = Relu(%sum)\n"
            "    output %positive: float32[2]\n"
            "  else_branch:\n"
            "    %chosen = If(%condition)\n"
            "      then_branch:\n"
            "        %scale: float32[2] = {2, 4}\n"
            "        %scaled = Mul(%hidden, %scale)\n"
            "        output %scaled: float32[2]\n"
            "      else_branch:\n"
            "        %negated = Neg(%hidden)\n"
            "        output %negated: float32[2]\n"
            "    output %chosen: float32[2]\n"
            "output %y: float32[2]\n");
}

TEST(Subgraphs, ValuesUsedInBodiesOnlyAreAlive) {
  OnnxGraph graph = if_graph();
  const std::string before = to_text(graph);
  remove_dead(graph);
  EXPECT_EQ(to_text(graph), before);
  EXPECT_NE(graph.initializer("bias"), nullptr);
  graph.outputs = {"hidden"};
  remove_dead(graph);
  EXPECT_EQ(graph.nodes.size(), 1U);
  EXPECT_EQ(graph.initializer("bias"), nullptr);
}

TEST(Subgraphs, IndexCountsUsesInBodies) {
  OnnxGraph graph = if_graph();
  const GraphIndex index(graph);
  EXPECT_EQ(index.uses("hidden"), 2U);
  ASSERT_EQ(index.consumers("hidden").size(), 1U);
  EXPECT_EQ(index.consumers("hidden")[0]->op_type, "If");
  EXPECT_EQ(index.uses("condition"), 2U);
  EXPECT_EQ(index.uses("x"), 2U);
  // A body's own values are none of the graph's.
  for (const char* own : {"sum", "positive", "scale", "scaled", "chosen"}) {
    EXPECT_EQ(index.uses(own), 0U) << own;
    EXPECT_TRUE(index.consumers(own).empty()) << own;
  }
}

TEST(Subgraphs, ReplaceUsesReachesIntoBodiesAndCopiesThem) {
  OnnxGraph graph = if_graph();
  const OnnxGraph original = graph;  // shares the bodies
  replace_uses(graph, "hidden", "x");
  remove_dead(graph);
  EXPECT_EQ(graph.nodes.size(), 1U);
  const OnnxGraph& otherwise = body(graph.nodes.back(), "else_branch");
  EXPECT_EQ(body(otherwise.nodes.front(), "then_branch").nodes.front().inputs[0], "x");
  EXPECT_EQ(body(otherwise.nodes.front(), "else_branch").nodes.front().inputs[0], "x");
  EXPECT_EQ(to_text(original), to_text(if_graph()));
  // The body without such a use is not copied.
  EXPECT_EQ(&body(graph.nodes.back(), "then_branch"), &body(original.nodes.back(), "then_branch"));
}

TEST(Subgraphs, ABodysOwnValueOfTheSameNameIsNotRenamed) {
  auto shadow = std::make_shared<OnnxGraph>();
  shadow->inputs = {"hidden"};
  shadow->outputs = {"hidden", "x"};
  OnnxNode loop = node("Loop", {"count"}, {"r"}, {{"body", Subgraph{shadow}}});
  loop.rename_uses({{"hidden", "other"}, {"x", "z"}, {"count", "n"}});
  EXPECT_EQ(loop.inputs, std::vector<std::string>{"n"});
  EXPECT_EQ(body(loop, "body").inputs, std::vector<std::string>{"hidden"});
  EXPECT_EQ(body(loop, "body").outputs, (std::vector<std::string>{"hidden", "z"}));
}

TEST(Subgraphs, UniqueNamesKeepAwayFromBodies) {
  OnnxGraph graph = if_graph();
  for (const char* name : {"sum", "scale", "hidden", "negated", "else/else/Neg", "then/Relu"}) {
    EXPECT_EQ(graph.unique_name(name), std::string(name) + "_1");
  }
}

TEST(OnnxNode, AttributesAreFoundAndReplaced) {
  OnnxNode made = node("Concat", {"a"}, {"b"}, {{"axis", int64_t{1}}});
  EXPECT_EQ(made.int_attribute("axis", 0), 1);
  EXPECT_EQ(made.int_attribute("absent", 7), 7);
  made.set("axis", int64_t{2});
  made.set("other", 0.5F);
  EXPECT_EQ(made.int_attribute("axis", 0), 2);
  EXPECT_EQ(made.attributes.size(), 2U);
  EXPECT_EQ(made.find("absent"), nullptr);
  EXPECT_THROW(made.int_attribute("other", 0), std::logic_error);
}

TEST(DTypes, NamesAndSizes) {
  EXPECT_EQ(dtype_name(DType::kBFloat16), "bfloat16");
  EXPECT_EQ(dtype_name(static_cast<DType>(99)), "undefined");
  EXPECT_EQ(dtype_bits(DType::kFloat16), 16U);
  EXPECT_EQ(dtype_bits(DType::kInt4), 4U);
  EXPECT_EQ(dtype_bits(DType::kString), 0U);
  EXPECT_TRUE(is_floating(DType::kFloat64));
  EXPECT_FALSE(is_floating(DType::kInt8));
}

TEST(TensorData, CountsElementsAndProducesOnDemand) {
  EXPECT_EQ(TensorData::scalar<float>(DType::kFloat32, 1).numel(), 1);
  EXPECT_EQ((TensorData{DType::kInt16, {2, 0, 3}, nullptr, nullptr}).numel(), 0);
  int made = 0;
  TensorData lazy{DType::kInt8, {1}, nullptr, [&made] {
                    ++made;
                    return std::static_pointer_cast<const void>(std::make_shared<int8_t>(5));
                  }};
  EXPECT_EQ(*static_cast<const int8_t*>(lazy.load().get()), 5);
  lazy.load();
  EXPECT_EQ(made, 2);  // dropped after use
}

TEST(UnsupportedOp, MessageIsOneReadableLine) {
  const UnsupportedOp full({.op = "aten::avg_pool2d",
                            .argument = "divisor_override",
                            .value = "3",
                            .opset = 21,
                            .reason = "ONNX has no divisor",
                            .hint = "divide afterwards",
                            .where = "layer1.pool, net.py:7"});
  EXPECT_STREQ(full.what(),
               "aten::avg_pool2d: argument 'divisor_override' = 3: ONNX has no divisor (opset 21); "
               "divide afterwards "
               "[at layer1.pool, net.py:7]");
  const UnsupportedOp bare(UnsupportedOp::Details{.op = "aten::foo", .reason = "unknown"});
  EXPECT_STREQ(bare.what(), "aten::foo: unknown");
}

}  // namespace
}  // namespace qcdq
