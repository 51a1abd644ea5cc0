// .pt2 programs: archives written here record by record, so that each rule of the format is tested
// without Python (tests/python/test_pt2.py reads what torch.export.save writes).
#include <caffe2/serialize/inline_container.h>
#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "program_fixture.h"
#include "qcdq/export.h"
#include "symbolic/source/pt2_symbols.h"

namespace qcdq {
namespace {

using nlohmann::json;

TEST(SizeExpression, ReadsAndEvaluates) {
  const auto size = SizeExpression::parse(
      "Add(Mul(Integer(2), Symbol('s17', positive=True, integer=True)), Integer(1))");
  EXPECT_EQ(size.text(), "2*s17 + 1");
  EXPECT_EQ(size.text({{"s17", "N"}}), "2*N + 1");
  EXPECT_EQ(size.evaluate({{"s17", 4}}), 9);
  EXPECT_FALSE(size.constant());
  EXPECT_FALSE(size.symbol());
  EXPECT_TRUE(size.contains("s17"));
  EXPECT_FALSE(size.contains("s1"));
  EXPECT_EQ(SizeExpression::parse("Symbol('s0', integer=True)").symbol(), "s0");
  EXPECT_EQ(SizeExpression(7).constant(), 7);
  EXPECT_EQ(SizeExpression::parse("FloorDiv(Integer(-7), Integer(2))").constant(), -4);
  EXPECT_EQ(SizeExpression::parse("Mod(Integer(-7), Integer(3))").constant(), 2);
  EXPECT_EQ(SizeExpression::parse("Pow(Integer(3), Integer(2), evaluate=False)").constant(), 9);
  EXPECT_EQ(SizeExpression::parse("Max(Integer(3), Min(Integer(8), Integer(5)))").constant(), 5);
  const auto nested =
      SizeExpression::parse("FloorDiv(Add(Symbol('s0', integer=True), Integer(1)), Integer(2))");
  EXPECT_EQ(nested.text(), "(s0 + 1)//2");
}

TEST(SizeExpression, RefusesWhatItDoesNotKnow) {
  for (const char* text : {"", "Floor(Integer(1))", "Add(Integer(1)", "Integer(1) x", "Symbol(s0)",
                           "Mod(Integer(1))", "Integer(99999999999999999999)"}) {
    EXPECT_EQ(error_of([&] { SizeExpression::parse(text); }),
              "'" + std::string(text) + "' is no size expression that is known");
  }
  EXPECT_EQ(error_of([] { SizeExpression::parse("Symbol('s0')").evaluate({}); }),
            "size symbol 's0' has no value");
  EXPECT_EQ(error_of([] { SizeExpression::parse("Mod(Integer(1), Integer(0))").constant(); }),
            "a size expression divides by zero");
}

json tensor(const std::string& name) { return {{"as_tensor", {{"name", name}}}}; }
json size(int64_t value) { return {{"as_int", value}}; }
json symbol(const std::string& name, int64_t hint) {
  return {{"as_expr",
           {{"expr_str", "Symbol('" + name + "', positive=True, integer=True)"},
            {"hint", {{"as_int", hint}}}}}};
}
json meta(const std::vector<json>& sizes, const std::vector<json>& strides, int dtype = 7) {
  return {{"dtype", dtype},
          {"sizes", sizes},
          {"requires_grad", false},
          {"device", {{"type", "cpu"}, {"index", nullptr}}},
          {"strides", strides},
          {"storage_offset", {{"as_int", 0}}},
          {"layout", 7}};
}
json argument(const std::string& name, const json& value) {
  return {{"name", name}, {"arg", value}, {"kind", 1}};
}
json node(const std::string& target, const std::vector<json>& inputs,
          const std::vector<json>& outputs) {
  return {{"target", target},
          {"inputs", inputs},
          {"outputs", outputs},
          {"metadata",
           {{"stack_trace", "File \"/home/me/net.py\", line 12, in forward\n    return y\n"},
            {"nn_module_stack", "L__self__,,Net;L__self___fc,fc,torch.nn.Linear"}}}};
}

/// x[s0, 2] -> relu(x) * w, with a weight w[2].
json scaled_relu() {
  json program;
  program["schema_version"] = {{"major", 8}, {"minor", 20}};
  program["torch_version"] = "2.15.0";
  program["range_constraints"] = {{"s0", {{"min_val", 2}, {"max_val", 9}}}};
  json& graph = program["graph_module"]["graph"];
  graph["tensor_values"] = {{"x", meta({symbol("s0", 3), size(2)}, {size(2), size(1)})}};
  graph["nodes"] = json::array(
      {node("torch.ops.aten.relu.default", {argument("self", tensor("x"))}, {tensor("relu")}),
       node("torch.ops.aten.mul.Tensor",
            {argument("self", tensor("relu")), argument("other", tensor("w"))}, {tensor("mul")})});
  json& signature = program["graph_module"]["signature"];
  signature["input_specs"] =
      json::array({{{"parameter", {{"arg", {{"name", "w"}}}, {"parameter_name", "fc.weight"}}}},
                   {{"user_input", {{"arg", tensor("x")}}}}});
  signature["output_specs"] = json::array({{{"user_output", {{"arg", tensor("mul")}}}}});
  return program;
}

class Pt2 : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("qcdq_pt2_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    path_ = (folder_ / "model.pt2").string();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  /// Writes the archive; `more` adds or replaces records.
  void write(const json& program, std::map<std::string, std::string> more = {}) const {
    const std::vector<float> weight = {2, -3};
    std::map<std::string, std::string> records = {
        {"archive_format", "pt2"},
        {"archive_version", "0"},
        {"byteorder", "little"},
        {"models/model.json", program.dump()},
        {"data/weights/weight_0",
         std::string(reinterpret_cast<const char*>(weight.data()), 2 * sizeof(float))},
        {"data/weights/model_weights_config.json",
         json({{"config",
                {{"fc.weight",
                  {{"path_name", "weight_0"},
                   {"is_param", true},
                   {"use_pickle", false},
                   {"tensor_meta", meta({size(2)}, {size(1)})}}}}}})
             .dump()}};
    for (auto& [name, bytes] : more) records[name] = bytes;
    caffe2::serialize::PyTorchStreamWriter writer(path_);
    for (const auto& [name, bytes] : records) {
      if (!bytes.empty()) writer.writeRecord(name, bytes.data(), bytes.size());
    }
    writer.writeEndOfFile();
  }

  std::string error() const {
    std::string text = error_of([&] { load_pt2(path_); });
    if (text.starts_with(path_ + ": ")) text.erase(0, path_.size() + 2);
    return text;
  }
  std::string error_of_program(const json& program) const {
    write(program);
    return error();
  }

  std::filesystem::path folder_;
  std::string path_;
};

TEST_F(Pt2, RunsTheProgram) {
  write(scaled_relu());
  const ExportedProgram program = load_pt2(path_);
  ASSERT_EQ(program.inputs().size(), 1u);
  EXPECT_EQ(program.inputs()[0].name, "x");
  EXPECT_EQ(program.inputs()[0].symbols, (std::vector<std::string>{"s0", ""}));
  EXPECT_EQ(program.inputs()[0].example.sizes(), (std::vector<int64_t>{3, 2}));
  const at::Tensor x = torch::tensor({1.f, 2.f, -3.f, 4.f}).view({2, 2});
  const std::vector<at::Tensor> outputs = program.run({x});
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_TRUE(outputs[0].equal(torch::tensor({2.f, -6.f, -0.f, -12.f}).view({2, 2})));
}

TEST_F(Pt2, SecondSizesStayInRange) {
  write(scaled_relu());
  const ExportedProgram program = load_pt2(path_);
  using Sizes = std::vector<std::vector<int64_t>>;
  EXPECT_EQ(program.other_sizes({{3, 2}}), (Sizes{{4, 2}}));
  EXPECT_EQ(program.other_sizes({{9, 2}}), (Sizes{{8, 2}}));
  EXPECT_EQ(error_of([&] {
              program.other_sizes({{10, 2}});
            }),
            "size s0 is 10, the program takes 2 to 9");
  EXPECT_EQ(error_of([&] {
              program.other_sizes({{3, 4}});
            }),
            "input 'x' has the shape [3, 4]: axis 1 is 4, the program takes only 2 (export it with "
            "dynamic_shapes for others)");
  EXPECT_EQ(error_of([&] { program.other_sizes({{3}}); }),
            "input 'x' has 1 dimensions, the program takes 2");
  EXPECT_EQ(error_of([&] {
              program.run({at::ones({2, 2}, at::kLong)});
            }),
            "input 'x' is Long, the program takes Float");
  EXPECT_EQ(error_of([&] { program.run({}); }), "the program takes 1 inputs, got 0");
}

TEST_F(Pt2, BecomesAProgramWithNamedAxes) {
  write(scaled_relu());
  const ExportedProgram exported = load_pt2(path_);
  Program program = program_from_pt2(exported, {}, {});
  EXPECT_EQ(program.inputs[0].symbols, (std::vector<std::string>{"s0", ""}));
  ASSERT_EQ(program.inputs[0].examples.size(), 2u);
  EXPECT_EQ(program.inputs[0].examples[1].toTensor().sizes(), (std::vector<int64_t>{4, 2}));
  lower(program);
  record(program);
  EXPECT_EQ(ops(program), (std::map<std::string, int>{{"aten::relu", 1}, {"aten::mul.Tensor", 1}}));
  EXPECT_EQ(program.parameter_paths.size(), 1u);
  EXPECT_EQ(program.parameter_paths.begin()->second, "fc.weight");
  EXPECT_EQ(node_location(**program.graph->nodes().begin()->next()->iterator()),
            "fc, me/net.py:12");

  ExportOptions options;
  options.dynamic_axes = {{"x", 0, "N"}};
  EXPECT_EQ(program_from_pt2(exported, {}, options).inputs[0].symbols[0], "N");
  options.dynamic_axes = {{"x", 1, "N"}};
  EXPECT_EQ(error_of([&] { program_from_pt2(exported, {}, options); }),
            "dynamic axis x:1: the program fixes the size to 2; export it with dynamic_shapes");
  options.dynamic_axes = {{"y", 0, "N"}};
  EXPECT_EQ(error_of([&] { program_from_pt2(exported, {}, options); }),
            "dynamic axis y:0: the model has no input 'y' (it has x)");
}

TEST_F(Pt2, WeightsStayInTheFile) {
  write(scaled_relu());
  const auto size_before = std::filesystem::file_size(path_);
  const ExportedProgram first = load_pt2(path_);
  const Program a = program_from_pt2(first, {}, {});
  const Program b = program_from_pt2(first, {}, {});
  // Two programs, one tensor.
  EXPECT_EQ(a.parameter_paths.begin()->first, b.parameter_paths.begin()->first);
  EXPECT_EQ(std::filesystem::file_size(path_), size_before);
}

TEST_F(Pt2, NamesWhatIsWrongWithTheFile) {
  EXPECT_EQ(error(), "No such file or directory");
  std::ofstream(path_) << "hello";
  EXPECT_EQ(error(),
            "not a zip archive, and so no .pt2 file; save one with torch.export.save (torch 2.11 "
            "to 2.15)");
  std::ofstream(path_) << "";
  EXPECT_EQ(error(), "the file is empty");
  std::ofstream(path_) << "PK\x03\x04 and no more";
  EXPECT_EQ(error(), "the zip archive is truncated or damaged");
  json program = scaled_relu();
  write(program, {{"models/model.json", "{"}});
  EXPECT_TRUE(error().starts_with("record models/model.json is damaged: ")) << error();
  write(program, {{"models/model.json", ""}});
  EXPECT_EQ(error(),
            "holds no exported program; save one with torch.export.save (torch 2.11 to 2.15)");
  write(program, {{"models/model.json", ""}, {"models/a.json", "{}"}, {"models/b.json", "{}"}});
  EXPECT_EQ(error(), "holds several programs (a, b): name one");
  EXPECT_EQ(error_of([&] { load_pt2(path_, "c"); }),
            path_ + ": holds no program 'c' (it has a, b)");
  write(program, {{"archive_version", "1"}});
  EXPECT_EQ(error(), "archive_version is '1', expected '0'");
  write(program, {{"byteorder", "big"}});
  EXPECT_EQ(error(), "byteorder is 'big', expected 'little'");
  program["schema_version"]["major"] = 9;
  EXPECT_EQ(error_of_program(program),
            "schema version 9.20 (torch 2.15.0), expected 8.x; save one with torch.export.save "
            "(torch 2.11 to 2.15)");
  write(scaled_relu(), {{"data/weights/weight_0", "1234"}});
  EXPECT_EQ(error(), "'fc.weight' needs 8 bytes, record data/weights/weight_0 has 4");
  write(scaled_relu(), {{"data/weights/weight_0", ""}});
  EXPECT_EQ(error(), "record data/weights/weight_0 is missing");
  write(scaled_relu(), {{"data/weights/model_weights_config.json", ""}});
  EXPECT_EQ(error(), "the file holds no tensor 'fc.weight', which the program uses");
}

TEST_F(Pt2, NamesWhatIsWrongWithTheProgram) {
  const auto with_node = [](const json& changed) {
    json program = scaled_relu();
    program["graph_module"]["graph"]["nodes"][0] = changed;
    return program;
  };
  EXPECT_EQ(error_of_program(
                with_node(node("torch.ops.aten.relu.other", {argument("self", tensor("x"))}, {}))),
            "aten::relu has no overload 'other' in this torch");
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
