// NodeArgs: every argument is read or named, constants are shared, run-time values are refused; and
// how convert names and reports.
#include "symbolic/convert/node_args.h"

#include <gtest/gtest.h>
#include <torch/script.h>

#include "symbolic/convert/convert.h"
#include "symbolic/graph/graph_builder.h"
#include "symbolic/program/tensors.h"
#include "symbolic/settle.h"
#include "tests/symbolic/case_file.h"

namespace qcdq::testing {
namespace {

Case small_case(std::vector<std::string> declarations, std::vector<std::string> body) {
  Case one;
  one.name = "inline";
  one.declarations = std::move(declarations);
  one.body = std::move(body);
  return one;
}

Program recorded(const Case& one) {
  Program program = program_of(one);
  settle_lowered(program);
  return program;
}

std::string message_of(Program& program, int64_t opset = 21) {
  try {
    convert(program, opset, {});
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was refused";
}

std::vector<Value> forgets_alpha(GraphBuilder& graph, NodeArgs& args) {
  return {graph.op("Add", {args.tensor("self"), args.tensor("other")})};
}
std::vector<Value> wrong_type(GraphBuilder& graph, NodeArgs& args) {
  return {graph.op("Shape", {args.tensor("self")})};
}
std::vector<Value> too_few(GraphBuilder&, NodeArgs& args) {
  args.tensor("self");
  return {};
}

TEST(NodeArgs, AnArgumentThatIsNotReadFailsTheExport) {
  register_symbolics(
      {{"aten::lerp.Scalar", 10, [](GraphBuilder& graph, NodeArgs& args) -> std::vector<Value> {
          return {graph.op("Add", {args.tensor("self"), args.tensor("end")})};
        }}});
  Program program = recorded(
      small_case({"input x f32[2]"}, {"%y : Tensor = aten::lerp(%x, %x, 0.25)", "return (%y)"}));
  EXPECT_EQ(message_of(program),
            "aten::lerp.Scalar: argument 'weight' = 0.25: its symbolic function neither reads this "
            "argument nor says that it has no "
            "meaning in ONNX (opset 21)");
}

TEST(NodeArgs, AResultOfAnotherTypeThanTorchsIsRefused) {
  register_symbolics({{"aten::erfc", 10, wrong_type},
                      {"aten::expm1", 10, too_few},
                      {"aten::hypot", 10, forgets_alpha}});
  Program program =
      recorded(small_case({"input x f32[2]"}, {"%y : Tensor = aten::erfc(%x)", "return (%y)"}));
  EXPECT_EQ(message_of(program), "aten::erfc: gives float32 in torch and int64 in ONNX (opset 21)");
  Program few =
      recorded(small_case({"input x f32[2]"}, {"%y : Tensor = aten::expm1(%x)", "return (%y)"}));
  EXPECT_EQ(message_of(few), "aten::expm1: its symbolic function gave 0 values for 1 outputs");
  Program fine = recorded(
      small_case({"input x f32[2]"}, {"%y : Tensor = aten::hypot(%x, %x)", "return (%y)"}));
  EXPECT_EQ(message_of(fine), "nothing was refused");
}

TEST(NodeArgs, AParameterIsSharedAndNamed) {
  Program program = recorded(
      small_case({"input x f32[2,3]", "const layer1.0.fc.weight f32[4,3]"},
                 {"%y : Tensor = aten::linear(%x, %layer1.0.fc.weight, None)", "return (%y)"}));
  const OnnxGraph graph = convert(program, 21, {});
  const TensorData* weight = graph.initializer("layer1.0.fc.weight");
  ASSERT_NE(weight, nullptr);
  EXPECT_TRUE(program.parameter_paths.contains(weight->data.get()));  // not a copy
  EXPECT_EQ(graph.nodes.front().name, "layer1.0.fc/Gemm");
}

TEST(NodeArgs, TensorsThatAreNotDenseAreMadeSoWhenWritten) {
  const at::Tensor base = at::arange(200, at::kFloat).reshape({10, 20});
  const TensorData data = tensor_data(base.t());
  EXPECT_EQ(data.data, nullptr);
  EXPECT_EQ(data.dims, (std::vector<int64_t>{20, 10}));
  EXPECT_EQ(static_cast<const float*>(data.load().get())[1], 20.0F);
  EXPECT_EQ(tensor_data(base).data.get(), base.const_data_ptr());
  EXPECT_THROW(tensor_data(at::zeros({2}, at::kComplexFloat)), std::invalid_argument);
}

TEST(NodeArgs, TypedAccessByName) {
  Program program = recorded(small_case(
      {"input x f32[1,2,6,6]", "const w f32[3,2,3,3]"},
      {"%y : Tensor = aten::conv2d(%x, %w, None, [2, 2], [1, 1], [1, 1], 1)", "return (%y)"}));
  OnnxGraph graph;
  GraphBuilder::State state{graph, {}, "", "", "", nullptr};
  GraphBuilder builder(state);
  ValueTable table(program, builder);
  graph.types["x"] = {DType::kFloat32, true, {1, 2, 6, 6}, {}};
  table.set(program.graph->inputs()[0], {"x"});
  torch::jit::Node* conv = nullptr;
  for (torch::jit::Node* node : program.graph->nodes()) {
    if (node->maybeSchema() != nullptr &&
        node->kind() == c10::Symbol::fromQualString("aten::conv2d"))
      conv = node;
  }
  ASSERT_NE(conv, nullptr);
  NodeArgs::State args_state(conv, table);
  NodeArgs args(args_state);
  EXPECT_EQ(args.op(), "aten::conv2d");
  EXPECT_TRUE(args.has("dilation"));
  EXPECT_FALSE(args.has("transposed"));
  EXPECT_EQ(args_state.unread(), 0U);
  EXPECT_EQ(args.tensor("input").name, "x");
  EXPECT_FALSE(args.constant("input").has_value());
  EXPECT_EQ(args.constant("weight")->dims, (std::vector<int64_t>{3, 2, 3, 3}));
  EXPECT_TRUE(args.is_none("bias"));
  EXPECT_EQ(args.ints("stride"), (std::vector<int64_t>{2, 2}));
  args.ignore("padding", "for this test");
  args.ints("dilation");
  EXPECT_EQ(*args_state.unread(), 6U);
  EXPECT_EQ(args.integer("groups"), 1);
  EXPECT_FALSE(args_state.unread().has_value());
  EXPECT_EQ(args.outputs(), 1U);
  EXPECT_EQ(args.output_type().dims, (std::vector<int64_t>{1, 3, 3, 3}));
  EXPECT_FALSE(args.evaluate().has_value());
  EXPECT_THROW(args.string("groups"), UnsupportedOp);
  EXPECT_THROW(args.tensor("no_such_argument"), UnsupportedOp);
}

// What `read` says of argument N of aten::lerp.Scalar(%x, %x, N).
std::string read_of_weight(const std::string& literal, void (*read)(NodeArgs&)) {
  static void (*current)(NodeArgs&);
  current = read;
  register_symbolics(
      {{"aten::lerp.Scalar", 10, [](GraphBuilder&, NodeArgs& args) -> std::vector<Value> {
          current(args);
          args.tensor("end");
          return {args.tensor("self")};
        }}});
  Program program = recorded(small_case(
      {"input x f32[2]"}, {"%y : Tensor = aten::lerp(%x, %x, " + literal + ")", "return (%y)"}));
  return message_of(program);
}

TEST(NodeArgs, NumbersKeepTheirKind) {
  const std::string fine = "nothing was refused";
  EXPECT_EQ(read_of_weight("9007199254740993",
                           [](NodeArgs& args) {
                             EXPECT_EQ(args.number("weight"), Number(int64_t{9007199254740993}));
                             EXPECT_EQ(args.integer("weight"), 9007199254740993);
                             EXPECT_EQ(args.real("weight"), 9007199254740992.0);
                             EXPECT_EQ(args.optional_real("weight"), 9007199254740992.0);
                           }),
            fine);
  EXPECT_EQ(read_of_weight("0.25",
                           [](NodeArgs& args) {
                             EXPECT_EQ(args.number("weight"), Number(0.25));
                             EXPECT_EQ(args.optional_number("weight"), Number(0.25));
                           }),
            fine);
}

TEST(NodeArgs, AConstantOfAnotherKindIsRefusedByName) {
  EXPECT_EQ(read_of_weight("0.25", [](NodeArgs& args) { args.integer("weight"); }),
            "aten::lerp.Scalar: argument 'weight' = 0.25: expected an int (opset 21)");
  EXPECT_EQ(read_of_weight("0.25", [](NodeArgs& args) { args.string("weight"); }),
            "aten::lerp.Scalar: argument 'weight' = 0.25: expected a string (opset 21)");
  EXPECT_EQ(read_of_weight("0.25", [](NodeArgs& args) { args.boolean("weight"); }),
            "aten::lerp.Scalar: argument 'weight' = 0.25: expected a bool (opset 21)");
  EXPECT_EQ(read_of_weight("0.25", [](NodeArgs& args) { args.ints_value("weight"); }),
            "aten::lerp.Scalar: argument 'weight' = 0.25: expected a list of ints (opset 21)");
  EXPECT_NE(read_of_weight("0.25", [](NodeArgs& args) { args.number("self"); })
                .find("argument 'self' = %x: is computed at run time"),
            std::string::npos);
}

TEST(NodeArgs, AFloatAmongRunTimeSizesIsRefusedByName) {
  register_symbolics({{"aten::_test_optional_floatlist", 10,
                       [](GraphBuilder&, NodeArgs& args) -> std::vector<Value> {
                         args.ints_value("addends");
                         return {args.tensor("values")};
                       }}});
  Program program = recorded(
      small_case({"input x f32[1,2,N=4:6]", "input v f32[2]"},
                 {"%n : int = aten::size(%x, 2)", "%f : float = aten::Float(%n)",
                  "%y : Tensor = aten::_test_optional_floatlist(%v, [2.0, %f])", "return (%y)"}));
  EXPECT_NE(message_of(program).find(": argument 'addends'"), std::string::npos);
  EXPECT_NE(message_of(program).find(": expected a list of ints (opset 21)"), std::string::npos)
      << message_of(program);
}

TEST(NodeArgs, EvaluateReadsAllArgumentsOrNone) {
  register_symbolics(
      {{"aten::lerp.Scalar", 10,
        [](GraphBuilder&, NodeArgs& args) -> std::vector<Value> {
          EXPECT_FALSE(args.evaluate().has_value());  // x is an input
          return {args.tensor("self")};
        }},
       {"aten::randint", 10,
        [](GraphBuilder& graph, NodeArgs& args) -> std::vector<Value> {
          EXPECT_FALSE(args.evaluate().has_value());  // another tensor at each run
          return {graph.scalar(DType::kInt64, 0)};
        }},
       {"aten::linspace", 10, [](GraphBuilder& graph, NodeArgs& args) -> std::vector<Value> {
          return {graph.constant(args.evaluate().value())};
        }}});
  Program partly = recorded(
      small_case({"input x f32[2]"}, {"%y : Tensor = aten::lerp(%x, %x, 0.25)", "return (%y)"}));
  EXPECT_NE(message_of(partly).find("argument 'end'"), std::string::npos);
  const auto added = [](const std::string& made) {
    Program program = recorded(small_case(
        {"input x f32[2]"}, {made, "%y : Tensor = aten::add(%x, %l, 1)", "return (%y)"}));
    return message_of(program);
  };
  EXPECT_NE(added("%l : Tensor = aten::randint(5, [2], None, None, None, None)")
                .find("argument 'high' = 5"),
            std::string::npos);
  EXPECT_EQ(added("%l : Tensor = aten::linspace(0, 1, 2, None, None, None, None)"),
            "nothing was refused");
}

std::vector<Value> throws_c10(GraphBuilder&, NodeArgs&) {
  TORCH_CHECK(false, "the kernel says no\nand goes on");
}
std::vector<Value> throws_runtime(GraphBuilder&, NodeArgs&) {
  throw std::runtime_error("a file is missing");
}
std::vector<Value> throws_logic(GraphBuilder&, NodeArgs&) { throw std::logic_error("a fault"); }
std::vector<Value> does_not_fit(GraphBuilder& graph, NodeArgs& args) {
  args.tensor("self");
  return {graph.scalar(DType::kUInt8, 300)};
}

TEST(Convert, ErrorsInsideAnOpAreRefusalsOfThatOp) {
  register_symbolics({{"aten::sinh", 10, throws_c10},
                      {"aten::trunc", 10, throws_runtime},
                      {"aten::frac", 10, does_not_fit},
                      {"aten::sinc", 10, throws_logic}});
  Program program = recorded(
      small_case({"input x f32[2]"},
                 {"%a : Tensor = aten::sinh(%x)", "%b : Tensor = aten::trunc(%x)",
                  "%d : Tensor = aten::digamma(%x)", "%e : Tensor = aten::frac(%x)",
                  "%s : Tensor = aten::add(%a, %b, 1)", "%t : Tensor = aten::add(%d, %e, 1)",
                  "%y : Tensor = aten::add(%s, %t, 1)", "return (%y)"}));
  EXPECT_EQ(message_of(program),
            "4 things can't be exported:\n"
            "  aten::sinh: the kernel says no (opset 21)\n"
            "  aten::trunc: a file is missing (opset 21)\n"
            "  aten::digamma: no symbolic function for it (opset 21); register one through "
            "qcdq/symbolic.h and load it with --plugin\n"
            "  aten::frac: 300 does not fit uint8 (opset 21)");
  Program fault =
      recorded(small_case({"input x f32[2]"}, {"%y : Tensor = aten::sinc(%x)", "return (%y)"}));
  EXPECT_EQ(message_of(fault), "aten::sinc: a fault");
}

TEST(Convert, AnErrorInsideAnOpNamesItsPlace) {
  register_symbolics({{"aten::sinh", 10, throws_c10}, {"aten::sinc", 10, throws_logic}});
  const auto said = [](const std::string& op) {
    Program program = recorded(
        small_case({"input x f32[2]"}, {"%y : Tensor = aten::" + op + "(%x)", "return (%y)"}));
    const auto source = std::make_shared<torch::jit::Source>("y = op(x)", "net.py", 7);
    program.graph->outputs()[0]->node()->setSourceRange({source, 0, 1});
    return message_of(program);
  };
  EXPECT_EQ(said("sinh"), "aten::sinh: the kernel says no (opset 21) [at net.py:7]");
  EXPECT_EQ(said("sinc"), "aten::sinc [at net.py:7]: a fault");
}

TEST(Convert, RepeatedRefusalsAreOneLine) {
  Program program = recorded(small_case(
      {"input x f32[2]"}, {"%a : Tensor = aten::digamma(%x)", "%b : Tensor = aten::digamma(%a)",
                           "%y : Tensor = aten::lgamma(%b)", "return (%y)"}));
  EXPECT_EQ(message_of(program),
            "2 things can't be exported:\n"
            "  aten::digamma: no symbolic function for it (opset 21); register one through "
            "qcdq/symbolic.h and load it with --plugin "
            "[at 2 places]\n"
            "  aten::lgamma: no symbolic function for it (opset 21); register one through "
            "qcdq/symbolic.h and load it with --plugin");
}

TEST(Convert, ThrowsAllRefusalsAsOne) {
  Program program =
      recorded(small_case({"input x f32[2]"}, {"%a : Tensor = aten::digamma(%x)",
                                               "%y : Tensor = aten::lgamma(%a)", "return (%y)"}));
  try {
    convert(program, 21, {});
    FAIL() << "two ops without a symbolic function were not refused";
  } catch (const UnsupportedOp& error) {
    ASSERT_EQ(error.refusals().size(), 2U);
    EXPECT_EQ(error.details().op, "aten::digamma");
    EXPECT_EQ(error.refusals()[1].op, "aten::lgamma");
    EXPECT_EQ(error.refusals()[1].opset, 21);
  }
}

TEST(Convert, UserRowsAreUsed) {
  register_symbolics({{"aten::special_erfcx", 10, nullptr, "Erf"}});
  Program program = recorded(
      small_case({"input x f32[2]"}, {"%y : Tensor = aten::special_erfcx(%x)", "return (%y)"}));
  const OnnxGraph graph = convert(program, 21, {});
  EXPECT_EQ(graph.nodes.front().op_type, "Erf");
  EXPECT_EQ(graph.nodes.front().outputs[0], "y0");
}

TEST(Convert, AQuantizedWeightNamesItsLayer) {
  Program program = recorded(small_case(
      {"input x f32[1,2]", "const first.weight f32[2,2]", "const second.weight f32[3,2]"},
      {"%w : Tensor = aten::fake_quantize_per_tensor_affine(%second.weight, 0.1, 0, -8, 7)",
       "%a : Tensor = aten::linear(%x, %first.weight, None)",
       "%y : Tensor = aten::linear(%a, %w, None)", "return (%y)"}));
  const OnnxGraph graph = convert(program, 21, {});
  EXPECT_TRUE(graph.nodes.back().name.starts_with("second/")) << graph.nodes.back().name;
  EXPECT_EQ(graph.nodes.back().torch_op, "aten::linear");
}

TEST(Convert, ARowOfTraitsIsNoConversion) {
  Program program =
      recorded(small_case({"input x f32[2]", "input m bool[2]"},
                          {"%y : Tensor = aten::masked_select(%x, %m)", "return (%y)"}));
  EXPECT_EQ(message_of(program),
            "aten::masked_select: no symbolic function for it (opset 21); register one through "
            "qcdq/symbolic.h and load it with --plugin");
}

}  // namespace
}  // namespace qcdq::testing
