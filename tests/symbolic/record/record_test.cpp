// Recording: types with dynamic dimensions, what shapes decide, and the refusal of graphs that
// don't follow their dynamic axes.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "symbolic/lower/lower.h"
#include "symbolic/settle.h"
#include "symbolic/source/source.h"
#include "tests/symbolic/program_fixture.h"

namespace qcdq {
namespace {

Program recorded(const torch::jit::Module& module, const std::vector<c10::IValue>& inputs,
                 const std::vector<DynamicAxis>& dynamic_axes = {}) {
  ExportOptions options;
  options.dynamic_axes = dynamic_axes;
  Program program = program_from_torchscript(module, inputs, options);
  settle(program);
  return program;
}

const TensorType& output_type(const Program& program, size_t index = 0) {
  return program.types.at(program.graph->outputs()[index]);
}

TEST(Record, TypesOfEveryTensor) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    y = torch.linear(x, self.w)
    return y.to(7), y > 0
)",
                                              at::ones({3, 2}));
  const Program program = recorded(module, {at::ones({5, 2})});
  EXPECT_EQ(output_type(program, 0).dtype, DType::kFloat64);
  EXPECT_EQ(output_type(program, 0).dims, (std::vector<int64_t>{5, 3}));
  EXPECT_TRUE(output_type(program, 0).is_static());
  EXPECT_EQ(output_type(program, 1).dtype, DType::kBool);
  for (const torch::jit::Node* node : program.graph->nodes()) {
    for (const torch::jit::Value* value : node->outputs()) {
      if (value->type()->kind() == c10::TypeKind::TensorType) {
        EXPECT_EQ(program.types.count(value), 1U) << *node;
      }
    }
  }
  EXPECT_EQ(program.types.count(program.graph->inputs()[0]), 1U);
}

TEST(Record, DynamicDimensionsCarryTheirSymbols) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x, y):
    return torch.mm(x, y), torch.cat([x, x], 0)
)");
  // Both symbols have size 2 in the example: the second sizes tell them apart.
  const Program program =
      recorded(module, {at::ones({2, 3}), at::ones({3, 2})}, {{"x", 0, "N"}, {"y", -1, "M"}});
  EXPECT_EQ(output_type(program, 0).dims, (std::vector<int64_t>{-1, -1}));
  EXPECT_EQ(output_type(program, 0).symbols, (std::vector<std::string>{"N", "M"}));
  EXPECT_FALSE(output_type(program, 0).is_static());
  EXPECT_EQ(output_type(program, 1).dims, (std::vector<int64_t>{-1, 3}));
  EXPECT_EQ(output_type(program, 1).symbols, (std::vector<std::string>{"", ""}));
  EXPECT_EQ(program.types.at(program.graph->inputs()[0]).symbols,
            (std::vector<std::string>{"N", ""}));
}

TEST(Record, FoldsStaticSizesAndKeepsDynamicOnes) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    n, c, h = x.size()
    return x.view([n, c * h]).to(x.dtype) * float(x.dim())
)");
  const Program fixed = recorded(module, {at::ones({2, 3, 4})});
  EXPECT_EQ(ops(fixed), (Ops{{"aten::mul.Scalar", 1}, {"aten::to.dtype", 1}, {"aten::view", 1}}));
  const Program dynamic = recorded(module, {at::ones({2, 3, 4})}, {{"x", 0, "N"}});
  EXPECT_EQ(ops(dynamic), (Ops{{"aten::mul.Scalar", 1},
                               {"aten::size.int", 1},
                               {"aten::to.dtype", 1},
                               {"aten::view", 1}}));
  EXPECT_EQ(output_type(dynamic).dims, (std::vector<int64_t>{-1, 12}));
}

TEST(Record, FixesBranchesOnShapesAndKeepsThoseOnData) {
  const std::string script = R"(
def forward(self, x):
    if x.size(0) > 1:
        x = torch.relu(x)
    else:
        x = torch.sigmoid(x)
    if bool(x.sum() > 0):
        x = torch.tanh(x)
    else:
        x = torch.exp(x)
    return x
)";
  for (const bool dynamic : {false, true}) {
    const std::vector<DynamicAxis> axes = {{"x", 0, "N"}};
    const Program program = recorded(module_of(script), {at::ones({2, 3})},
                                     dynamic ? axes : std::vector<DynamicAxis>{});
    Ops counts = ops(program);
    EXPECT_EQ(counts["prim::If"], 1);
    EXPECT_EQ(counts["aten::relu"], 1);
    EXPECT_EQ(counts["aten::sigmoid"], 0);
    EXPECT_EQ(counts["aten::tanh"], 1);
    EXPECT_EQ(counts["aten::exp"], 1);
    EXPECT_EQ(program.notes.size(), dynamic ? 1U : 0U);
  }
}

TEST(Record, UnrollsLoopsOverSizes) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    parts = []
    for i in range(x.size(1)):
        parts.append(torch.relu(x[:, i]))
    return torch.stack(parts, 1)
)");
  const Program program = recorded(module, {at::ones({2, 3})}, {{"x", 0, "N"}});
  Ops counts = ops(program);
  EXPECT_EQ(counts["aten::relu"], 3);
  EXPECT_EQ(counts["prim::Loop"], 0);
  EXPECT_EQ(output_type(program).dims, (std::vector<int64_t>{-1, 3}));
  EXPECT_EQ(output_type(program).symbols.at(0), "N");
}

TEST(Record, RefusesABakedSizeByName) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    return torch.linear(x.view([2, -1]), self.w)
)",
                                              at::ones({3, 4}));
  EXPECT_EQ(recorded(module, {at::ones({2, 4})}).graph->outputs().size(), 1U);
  try {
    recorded(module, {at::ones({2, 4})}, {{"x", 0, "N"}});
    FAIL() << "a baked size was not refused";
  } catch (const UnsupportedOp& error) {
    EXPECT_EQ(error.details().op, "aten::view");
    EXPECT_EQ(error.details().reason,
              "its result has the shape [2, 6] at N=3: it keeps the example's size");
    EXPECT_NE(error.details().hint.find("a trace bakes the sizes of its example"),
              std::string::npos);
    EXPECT_NE(error.details().where.find(":3"), std::string::npos) << error.details().where;
  }
}

TEST(Record, RefusesAGraphThatDiffersFromItsReference) {
  const torch::jit::Module module = module_of("def forward(self, x):\n    return torch.relu(x)\n");
  ExportOptions options;
  options.dynamic_axes = {{"x", 0, "N"}};
  Program program = program_from_torchscript(module, {at::ones({2, 3})}, options);
  lower(program);
  program.graph_is_reference = false;  // as of a trace
  program.reference = [](const std::vector<c10::IValue>& inputs) {
    return std::vector<at::Tensor>{inputs[0].toTensor() + 0.5};
  };
  EXPECT_EQ(error_of([&] { settle_lowered(program); }),
            "the exported graph does not follow its dynamic axes: output 'output' differs from the "
            "model's by up to 0.500000 at N=3");
  program.reference = [](const std::vector<c10::IValue>& inputs) {
    return std::vector<at::Tensor>{inputs[0].toTensor().slice(0, 0, 2)};
  };
  EXPECT_EQ(error_of([&] { settle_lowered(program); }),
            "the exported graph does not follow its dynamic axes: output 'output' has the shape "
            "[3, 3], the model gives [2, 3] at N=3");
  program.reference = [](const std::vector<c10::IValue>&) -> std::vector<at::Tensor> {
    throw std::runtime_error("only batch 2");
  };
  EXPECT_EQ(error_of([&] { settle_lowered(program); }),
            "the model itself fails at N=3: only batch 2");
}

TEST(Record, RunsTheModuleItselfNeverForTorchScript) {
  const torch::jit::Module module = module_of("def forward(self, x):\n    return torch.relu(x)\n");
  for (const bool dynamic : {false, true}) {
    ExportOptions options;
    if (dynamic) options.dynamic_axes = {{"x", 0, "N"}};
    Program program = program_from_torchscript(module, {at::ones({2, 3})}, options);
    program.reference = [](const std::vector<c10::IValue>&) -> std::vector<at::Tensor> {
      throw std::runtime_error("a forward of the module");
    };
    lower(program);
    const int threads = at::get_num_threads();
    settle_lowered(program);
    EXPECT_EQ(at::get_num_threads(), threads);
    EXPECT_EQ(output_type(program).dims, (std::vector<int64_t>{dynamic ? -1 : 2, 3}));
  }
}

TEST(Record, NotesABakedSizeThatNoNodeContradicts) {
  const torch::jit::Module module =
      module_of("def forward(self, x):\n    return torch.relu(x.view([2, -1]))\n");
  const Program program = recorded(module, {at::ones({2, 4})}, {{"x", 0, "N"}});
  ASSERT_EQ(program.notes.size(), 1U);
  EXPECT_NE(program.notes[0].find("its result has the shape [2, 6] at N=3, as in the model: is a "
                                  "size baked in?"),
            std::string::npos)
      << program.notes[0];
}

TEST(Record, NamesTheOpThatFailsOnTheExample) {
  const torch::jit::Module module =
      module_of("def forward(self, x):\n    return torch.linear(x, self.w)\n");
  const std::string error = error_of([&] { recorded(module, {at::ones({2, 5})}); });
  EXPECT_TRUE(error.starts_with("aten::linear at ")) << error;
  EXPECT_NE(error.find(" fails on the example inputs: "), std::string::npos) << error;
  EXPECT_EQ(error.find('\n'), std::string::npos);
}

TEST(Record, RefusesOutputsThatAreNoTensors) {
  const torch::jit::Module number = module_of("def forward(self, x):\n    return x, x.size(0)\n");
  EXPECT_EQ(
      error_of([&] { recorded(number, {at::ones({2})}); }),
      "output 1 of the model is a int, expected a Tensor, or a tuple, list or dict of known length "
      "of them");
}

TEST(Record, WhatDataDecidesOfAShapeIsNotKnown) {
  const Program program = recorded(module_of(R"(
def forward(self, x):
    a = torch.nonzero(x)
    b = torch.masked_select(x, x > 0)
    c = torch.where(x > 0)[0]
    d = torch.where(x > 0, x, -x)
    e = x.repeat_interleave(2)
    return a, b, c, d, e
)"),
                                   {at::tensor({1.0F, -1.0F, 2.0F})});
  EXPECT_EQ(output_type(program, 0).dims, (std::vector<int64_t>{-1, 1}));  // [matches, rank of x]
  EXPECT_EQ(output_type(program, 1).dims, (std::vector<int64_t>{-1}));
  EXPECT_EQ(output_type(program, 2).dims, (std::vector<int64_t>{-1}));
  EXPECT_EQ(output_type(program, 3).dims, (std::vector<int64_t>{3}));
  EXPECT_EQ(output_type(program, 4).dims, (std::vector<int64_t>{6}));
}

TEST(Record, AnswersEveryQueryOfTypesAndShapes) {
  const Program program = recorded(module_of(R"(
def forward(self, x):
    if x.is_cuda or x.is_sparse or x.is_quantized or x.requires_grad or x.is_nested:
        return x - 1
    if x.dtype != 6 or not x.is_floating_point() or x.is_complex():
        return x - 2
    if x.dim() != 2 or x.numel() != 6 or len(x) != 2 or x.device.type != "cpu":
        return x - 3
    return torch.relu(x)
)"),
                                   {at::ones({2, 3})});
  EXPECT_EQ(ops(program), (Ops{{"aten::relu", 1}}));
}

TEST(Record, FoldsShapesBehindTracedIntegerArithmetic) {
  Program program = program_of_ir(R"(
graph(%x : Tensor):
  %one : int = prim::Constant[value=1]()
  %two : int = prim::Constant[value=2]()
  %minus : int = prim::Constant[value=-1]()
  %none : NoneType = prim::Constant()
  %n : int = aten::size(%x, %one)
  %t : Tensor = prim::NumToTensor(%n)
  %half : Tensor = prim::NumToTensor(%two)
  %mode : str = prim::Constant[value="floor"]()
  %d : Tensor = aten::div(%t, %half, %mode)
  %i : int = aten::Int(%d)
  %shape : int[] = prim::ListConstruct(%minus, %two, %i)
  %y : Tensor = aten::view(%x, %shape)
  return (%y))",
                                  {at::ones({2, 8})});
  settle(program);
  EXPECT_EQ(ops(program), (Ops{{"aten::view", 1}}));
  EXPECT_EQ(output_type(program).dims, (std::vector<int64_t>{2, 2, 4}));
}

}  // namespace
}  // namespace qcdq
