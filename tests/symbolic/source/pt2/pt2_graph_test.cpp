// Nodes of .pt2 programs: kinds of arguments and outputs, regions, writes in place, and what a
// wrong program is called (symbolic/source/pt2/graph.cpp, source/pt2/operators.cpp,
// source/pt2/arguments.cpp).
#include <torch/torch.h>

#include "symbolic/lower/lower.h"
#include "symbolic/source/source.h"
#include "tests/symbolic/source/pt2/pt2_fixture.h"

namespace qcdq {
namespace {

TEST_F(Pt2, NamesWhatIsWrongWithTheProgram) {
  const auto with_node = [](const json& changed) {
    json program = scaled_relu();
    program["graph_module"]["graph"]["nodes"][0] = changed;
    return program;
  };
  EXPECT_EQ(error_of_program(
                with_node(node("torch.ops.aten.relu.other", {argument("self", tensor("x"))}, {}))),
            "aten::relu has no overload 'other' in this torch");
  EXPECT_EQ(error_of_program(with_node(
                node("torch.ops.qcdq.fake_quantize.other", {argument("x", tensor("x"))}, {}))),
            "qcdq::fake_quantize has no overload 'other' in this torch");
  EXPECT_EQ(error_of_program(with_node(node("torch.ops.relu", {}, {}))),
            "the exported program is damaged: 'torch.ops.relu' names no op");
  EXPECT_EQ(error_of_program(with_node(node("torch.ops.mine.relu.default", {}, {}))),
            "mine::relu is not registered: load the library that defines it first (qcdq export "
            "--plugin LIB.so)");
  EXPECT_EQ(error_of_program(with_node(node("torch.ops.aten.relu.default", {}, {}))),
            "the exported program is damaged: aten::relu has no 'self'");
  EXPECT_EQ(error_of_program(with_node(
                node("torch.ops.aten.relu.default", {argument("self", tensor("z"))}, {}))),
            "the exported program is damaged: 'z' is used and made by no node");
  json program = scaled_relu();
  program["graph_module"]["graph"].erase("nodes");
  EXPECT_TRUE(
      error_of_program(program).starts_with("the exported program is damaged: no 'nodes' in {"));
  const auto refusal = [&](const json& changed) { return error_of_program(with_node(changed)); };
  EXPECT_NE(refusal(node("torch.ops.higher_order.cond", {}, {})).find("higher_order::cond"),
            std::string::npos);
  EXPECT_NE(refusal(node("torch.ops.higher_order.while_loop", {}, {})).find("me/net.py:12"),
            std::string::npos);
  EXPECT_NE(refusal(node("torch.sym_ite", {}, {})).find("torch.sym_ite"), std::string::npos);

  program = scaled_relu();
  program["graph_module"]["signature"]["output_specs"].push_back(
      {{"buffer_mutation", {{"arg", {{"name", "mul"}}}, {"buffer_name", "bn.running_mean"}}}});
  EXPECT_NE(error_of_program(program).find("changes its buffer 'bn.running_mean' as it runs"),
            std::string::npos);
  program["graph_module"]["signature"]["output_specs"][1] = {
      {"loss_output", {{"arg", {{"name", "mul"}}}}}};
  EXPECT_NE(error_of_program(program).find("loss_output"), std::string::npos);
}

/// Kinds of arguments, sym ints among them: each program's first node is `made`, its output "relu".
TEST_F(Pt2, ReadsEveryKindOfArgument) {
  const at::Tensor x = at::arange(-3, 3, at::kFloat).view({3, 2});
  const auto result = [&](const std::vector<json>& nodes) {
    json program = scaled_relu();
    program["graph_module"]["graph"]["nodes"] = nodes;
    program["graph_module"]["signature"]["output_specs"] =
        json::array({{{"user_output", {{"arg", tensor("y")}}}}});
    write(program);
    return load_pt2(path_).run({x}).at(0);
  };
  const json self = argument("self", tensor("x"));
  const auto op = [&](const std::string& target, std::vector<json> inputs) {
    inputs.insert(inputs.begin(), self);
    return result({node("torch.ops.aten." + target, inputs, {tensor("y")})});
  };
  EXPECT_TRUE(op("add.Tensor", {argument("other", {{"as_int", 3}})}).equal(x + 3));
  EXPECT_TRUE(op("mul.Tensor", {argument("other", {{"as_float", 0.5}})}).equal(x * 0.5));
  EXPECT_TRUE(op("maximum.default", {argument("other", {{"as_float", 0.5}})})
                  .equal(at::maximum(x, at::scalar_tensor(0.5))));
  EXPECT_TRUE(op("clamp.default", {argument("min", {{"as_none", true}}),
                                   argument("max", {{"as_float", "Infinity"}})})
                  .equal(x));
  EXPECT_TRUE(op("sum.dim_IntList",
                 {argument("dim", {{"as_ints", {1}}}), argument("keepdim", {{"as_bool", true}})})
                  .equal(x.sum(1, true)));
  EXPECT_TRUE(op("to.dtype", {argument("dtype", {{"as_scalar_type", 8}})}).dtype() == at::kDouble);
  EXPECT_TRUE(op("gelu.default", {argument("approximate", {{"as_string", "tanh"}})})
                  .equal(at::gelu(x, "tanh")));
  EXPECT_TRUE(
      op("new_zeros.default",
         {argument("size", {{"as_ints", {2}}}),
          argument("device", {{"as_device", {{"type", "cuda"}, {"index", 0}}}}),
          argument("layout", {{"as_layout", 7}}), argument("pin_memory", {{"as_bool", false}})})
          .equal(at::zeros({2})));
  EXPECT_TRUE(op("clone.default", {argument("memory_format", {{"as_memory_format", 1}})}).equal(x));
  // [x, x] and [None, index].
  EXPECT_TRUE(
      result({node("torch.ops.aten.cat.default",
                   {argument("tensors", {{"as_tensors", {{{"name", "x"}}, {{"name", "x"}}}}})},
                   {tensor("y")})})
          .equal(at::cat({x, x})));
  const json none = {{"as_none", true}};
  EXPECT_TRUE(
      result(
          {node("torch.ops.aten.arange.default", {argument("end", {{"as_int", 1}})}, {tensor("i")}),
           node("torch.ops.aten.index.Tensor",
                {self, argument("indices", {{"as_optional_tensors", {none, tensor("i")}}})},
                {tensor("y")})})
          .equal(x.slice(1, 0, 1)));
  // Sizes: (3 * 2 - 1) // 2 = 2, and outputs that are lists.
  const auto sym = [](const std::string& name) {
    return json{{"as_sym_int", {{"as_name", name}}}};
  };
  EXPECT_TRUE(
      result(
          {node("torch.ops.aten.sym_size.int", {self, argument("dim", {{"as_int", 0}})},
                {sym("n")}),
           node("_operator.mul", {argument("a", sym("n")), argument("b", {{"as_int", 2}})},
                {sym("m")}),
           node("_operator.sub", {argument("a", sym("m")), argument("b", {{"as_int", 1}})},
                {sym("k")}),
           node("_operator.floordiv", {argument("a", sym("k")), argument("b", {{"as_int", 2}})},
                {sym("h")}),
           node("torch.ops.aten._assert_scalar.default",
                {argument("self", sym("h")), argument("assert_msg", {{"as_string", "h"}})}, {}),
           node("torch.ops.aten.new_ones.default",
                {self, argument("size", {{"as_sym_ints", {{{"as_name", "h"}}, {{"as_int", 3}}}}})},
                {tensor("y")})})
          .equal(at::ones({2, 3})));
  EXPECT_TRUE(result({node("torch.ops.aten.unbind.int", {self, argument("dim", {{"as_int", 1}})},
                           {{{"as_tensors", {{{"name", "a"}}, {{"name", "y"}}}}}})})
                  .equal(x.select(1, 1)));
  EXPECT_TRUE(result({node("torch.ops.aten.max.dim", {self, argument("dim", {{"as_int", 0}})},
                           {tensor("v"), tensor("y")})})
                  .equal(std::get<1>(x.max(0))));
  const std::string refused = error_of([&] {
    op("add.Tensor", {argument("other", {{"as_complex", {{"real", 1.0}, {"imag", 2.0}}}})});
  });
  EXPECT_NE(refused.find("as_complex"), std::string::npos) << refused;
  EXPECT_NE(refused.find("other"), std::string::npos) << refused;
}

TEST_F(Pt2, InlinesRegionsWithoutGradients) {
  json inner;
  inner["inputs"] = json::array({tensor("a")});
  inner["outputs"] = json::array({tensor("b")});
  inner["nodes"] = json::array(
      {node("torch.ops.aten.neg.default", {argument("self", tensor("a"))}, {tensor("b")})});
  json program = scaled_relu();
  program["graph_module"]["graph"]["nodes"][0] = node(
      "torch.ops.higher_order.wrap_with_set_grad_enabled",
      {argument("", {{"as_bool", false}}),
       argument("", {{"as_graph", {{"name", "g"}, {"graph", inner}}}}), argument("", tensor("x"))},
      {tensor("relu")});
  write(program);
  EXPECT_TRUE(load_pt2(path_)
                  .run({at::ones({2, 2})})
                  .at(0)
                  .equal(torch::tensor({-2.f, 3.f, -2.f, 3.f}).view({2, 2})));
}

TEST_F(Pt2, InPlaceOpsLeaveTheInputsAndTheFileAlone) {
  json program = scaled_relu();
  program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.relu_.default";
  write(program);
  const ExportedProgram exported = load_pt2(path_);
  const at::Tensor x = at::full({2, 2}, -1.f);
  exported.run({x});
  EXPECT_TRUE(x.equal(at::full({2, 2}, -1.f)));
  Program functional = program_from_pt2(exported, {}, {});
  lower(functional);
  EXPECT_EQ(ops(functional).count("aten::relu"), 1u);
}

TEST_F(Pt2, OutputsThatAreNoTensors) {
  json program = scaled_relu();
  json& graph = program["graph_module"]["graph"];
  graph["nodes"].push_back(node("torch.ops.aten.sym_size.int",
                                {argument("self", tensor("x")), argument("dim", {{"as_int", 0}})},
                                {{{"as_sym_int", {{"as_name", "n"}}}}}));
  json& outputs = program["graph_module"]["signature"]["output_specs"];
  for (const json& value :
       {json{{"as_none", true}}, json{{"as_int", 3}}, json{{"as_sym_int", {{"as_name", "n"}}}}}) {
    outputs.push_back({{"user_output", {{"arg", value}}}});
  }
  write(program);
  const ExportedProgram exported = load_pt2(path_);
  const auto results = exported.run({at::ones({5, 2})});
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[1].item<int64_t>(), 5);
  EXPECT_EQ(program_from_pt2(exported, {}, {}).notes,
            (std::vector<std::string>{
                "output 1 of the model is None and left out",
                "output 2 of the model is the constant 3 and left out",
                "output 3 of the model is a number: a tensor without dimensions in the file"}));
}

}  // namespace
}  // namespace qcdq
