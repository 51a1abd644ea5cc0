// .pt2 programs: sizes, the archive, and what load_pt2 makes of it, from archives written here, so
// that each rule of the format is tested without Python (tests/python/test_pt2.py reads what
// torch.export.save writes). pt2_graph_test.cpp has the nodes.
#include <torch/torch.h>

#include <fstream>

#include "symbolic/settle.h"
#include "symbolic/source/pt2/size_expression.h"
#include "symbolic/source/source.h"
#include "tests/symbolic/source/pt2/pt2_fixture.h"

namespace qcdq {
namespace {

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
  settle(program);
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

/// What `damaged` does to the file ends in one line, or in a program that still runs.
void expect_one_line(const std::string& path, const std::string& damaged) {
  try {
    load_pt2(path).run({at::ones({2, 2})});
  } catch (const std::exception& error) {
    const std::string text = error.what();
    EXPECT_FALSE(text.empty()) << damaged;
    EXPECT_EQ(text.find('\n'), std::string::npos) << damaged << ": " << text;
  }
}

TEST_F(Pt2, CutFilesAreDamaged) {
  write(scaled_relu());
  const auto size = std::filesystem::file_size(path_);
  for (const double part : {0.99, 0.9, 0.5, 0.1}) {
    write(scaled_relu());
    std::filesystem::resize_file(path_, static_cast<size_t>(static_cast<double>(size) * part));
    EXPECT_EQ(error(), "the zip archive is truncated or damaged") << part;
  }
}

TEST_F(Pt2, AnyWrongValueInTheProgramEndsInOneLine) {
  const json whole = scaled_relu();
  const json places = whole.flatten();
  for (const auto& [place, value] : places.items()) {
    for (const json& wrong : {json(), json(-1), json("x"), json::array(), json::object()}) {
      json program = whole;
      program[json::json_pointer(place)] = wrong;
      write(program);
      expect_one_line(path_, place + " = " + wrong.dump());
    }
  }
}

}  // namespace
}  // namespace qcdq
