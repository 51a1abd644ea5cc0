// Lowering: what is folded and what never is, in-place ops, lists, loops, branches, outputs.
#include <c10/core/Allocator.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>

#include "symbolic/lower/lower.h"
#include "symbolic/lower/passes.h"
#include "symbolic/source/source.h"
#include "tests/symbolic/program_fixture.h"

namespace qcdq {
namespace {

Program lowered(const torch::jit::Module& module, const std::vector<c10::IValue>& inputs,
                const ExportOptions& options = {}) {
  Program program = program_from_torchscript(module, inputs, options);
  lower(program);
  return program;
}

const torch::jit::Node* find(const Program& program, const std::string& op) {
  for (const torch::jit::Node* node : program.graph->nodes()) {
    if (op_name(*node) == op) return node;
  }
  return nullptr;
}

TEST(Lower, NamesThePassesThatDontComeToAnEnd) {
  Program program =
      lowered(module_of("def forward(self, x):\n    return torch.relu(x)\n"), {at::ones({1, 2})});
  const LoweringPass passes[] = {{"first", [](Program&) { return true; }},
                                 {"never", [](Program&) { return false; }},
                                 {"third", [](Program&) { return true; }}};
  try {
    run_until_settled(program, passes, nullptr, "lower 1");
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(),
                 "the graph does not settle: after 64 rounds, lowering still changes it (first, "
                 "third)");
  }
  // The list itself has nothing left to do on a lowered graph.
  EXPECT_EQ(run_until_settled(program, lowering_passes(), nullptr, "lower 1"), 2);
}

TEST(Lower, KeepsFakeQuantizeOfParameterAndBuffer) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    w = torch.fake_quantize_per_tensor_affine(self.w, 0.1, 0, -128, 127)
    b = torch.fake_quantize_per_channel_affine(self.b, torch.ones([2]), torch.zeros([2], dtype=3), 0, -128, 127)
    return torch.linear(x, w) + torch.linear(x, b)
)");
  const Program program = lowered(module, {at::ones({1, 2})});
  const Ops counts = ops(program);
  EXPECT_EQ(counts.at("aten::fake_quantize_per_tensor_affine"), 1);
  EXPECT_EQ(counts.at("aten::fake_quantize_per_channel_affine"), 1);
}

TEST(Lower, KeepsEveryQuantizerOfConstants) {
  const std::string text = R"(
graph(%x : Tensor):
  %one : int = prim::Constant[value=1]()
  %none : NoneType = prim::Constant()
  %lo : int = prim::Constant[value=-128]()
  %hi : int = prim::Constant[value=127]()
  %s : float = prim::Constant[value=0.1]()
  %z : int = prim::Constant[value=0]()
  %qint : int = prim::Constant[value=12]()
  %shape : int[] = prim::ListConstruct(%one)
  %w : Tensor = aten::ones(%shape, %none, %none, %none, %none)
  %scale : Tensor = aten::ones(%shape, %none, %none, %none, %none)
  %i32 : int = prim::Constant[value=3]()
  %zero : Tensor = aten::zeros(%shape, %i32, %none, %none, %none)
  %a : Tensor = qcdq::fake_quantize(%w, %scale, %zero, %lo, %hi, %none, %none)
  %b : Tensor = aten::fake_quantize_per_tensor_affine(%w, %s, %z, %lo, %hi)
  %q : Tensor = aten::quantize_per_tensor(%w, %s, %z, %qint)
  %c : Tensor = aten::dequantize(%q)
  %m : Tensor, %mask : Tensor = aten::fake_quantize_per_tensor_affine_cachemask(%w, %s, %z, %lo, %hi)
  %d : Tensor = aten::add(%a, %b, %one)
  %e : Tensor = aten::add(%c, %m, %one)
  %f : Tensor = aten::add(%d, %e, %one)
  %y : Tensor = aten::add(%x, %f, %one)
  return (%y))";
  Program program = program_of_ir(text, {at::ones({1})});
  lower(program);
  EXPECT_EQ(ops(program), (Ops{{"aten::add.Tensor", 4},
                               {"aten::fake_quantize_per_tensor_affine", 2},
                               {"aten::fake_quantize_per_tensor_affine_cachemask", 1},
                               {"qcdq::fake_quantize", 1}}));
}

TEST(Lower, FoldsScalarTensorsAndArithmeticOfConstants) {
  Program program = program_of_ir(R"(
graph(%x : Tensor):
  %none : NoneType = prim::Constant()
  %s : float = prim::Constant[value=0.5]()
  %t : Tensor = aten::scalar_tensor(%s, %none, %none, %none, %none)
  %u : Tensor = aten::mul(%t, %t)
  %y : Tensor = aten::mul(%x, %u)
  return (%y))",
                                  {at::ones({1})});
  lower(program);
  EXPECT_EQ(ops(program), (Ops{{"aten::mul.Tensor", 1}}));
  const auto constant =
      constant_value(const_cast<torch::jit::Value*>(find(program, "aten::mul.Tensor")->input(1)));
  ASSERT_TRUE(constant.has_value());
  EXPECT_EQ(constant->toTensor().item<float>(), 0.25F);
}

TEST(Lower, FoldsViewsOfWeightsWithoutACopy) {
  // 2 MiB: as torch::nn::Linear has it, whose forward is addmm(bias, x, weight.t()).
  const at::Tensor w = at::rand({512, 1024});
  const Program program = lowered(module_of(R"(
def forward(self, x):
    return torch.mm(x, self.w.t())
)",
                                            w),
                                  {at::ones({1, 1024})});
  EXPECT_EQ(ops(program), (Ops{{"aten::mm", 1}}));
  const auto weight =
      constant_value(const_cast<torch::jit::Value*>(find(program, "aten::mm")->input(1)));
  EXPECT_EQ(weight->toTensor().sizes(), (c10::IntArrayRef{1024, 512}));
  EXPECT_TRUE(weight->toTensor().is_alias_of(w));
  EXPECT_EQ(program.parameter_paths.at(weight->toTensor().const_data_ptr()), "w");
}

TEST(Lower, FoldsSmallTensorsUnderTheirNameAndLeavesLargeOnes) {
  const std::string script = R"(
def forward(self, x):
    return torch.mm(x, self.w * 2)
)";
  const Program small = lowered(module_of(script, at::rand({2, 3})), {at::ones({1, 2})});
  EXPECT_EQ(ops(small), (Ops{{"aten::mm", 1}}));
  const auto weight =
      constant_value(const_cast<torch::jit::Value*>(find(small, "aten::mm")->input(1)));
  EXPECT_EQ(small.parameter_paths.at(weight->toTensor().const_data_ptr()), "w");
  // 2 MiB: the product would be a second weight in memory.
  const Program large = lowered(module_of(script, at::rand({512, 1024})), {at::ones({1, 512})});
  EXPECT_EQ(ops(large), (Ops{{"aten::mm", 1}, {"aten::mul.Scalar", 1}}));
}

// Notes the largest block of memory that this thread asks for while it lives.
struct LargestAllocation : c10::MemoryReportingInfoBase {
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    bytes = std::max(bytes, size);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t bytes = 0;
};

TEST(Lower, NeverCopiesALargeWeight) {
  const at::Tensor w = at::rand({512, 1024}).t();  // 2 MiB, and not dense
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    a = self.w.contiguous() + self.w.to(7)
    b = self.w.reshape(-1) + self.w.flatten()
    return x + a.sum() + b.sum()
)",
                                              w);
  const auto largest = std::make_shared<LargestAllocation>();
  {
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, largest);
    lowered(module, {at::ones({1})});
  }
  EXPECT_GT(largest->bytes, 0);
  EXPECT_LT(largest->bytes, int64_t{1} << 20);
}

TEST(Lower, SharesTheStorageOfWeightsAndNamesThem) {
  const at::Tensor w = at::rand({3, 2});
  const torch::jit::Module module =
      module_of("def forward(self, x):\n    return torch.linear(x, self.w)\n", w);
  const std::string before = module.get_method("forward").graph()->toString();
  const Program program = lowered(module, {at::ones({1, 2})});
  const auto weight =
      constant_value(const_cast<torch::jit::Value*>(find(program, "aten::linear")->input(1)));
  EXPECT_EQ(weight->toTensor().const_data_ptr(), w.const_data_ptr());
  EXPECT_EQ(program.parameter_paths.at(w.const_data_ptr()), "w");
  EXPECT_EQ(module.get_method("forward").graph()->toString(), before);
}

TEST(Lower, RemovesDropoutInEvalModeOnly) {
  const std::string script = R"(
def forward(self, x):
    return torch.relu(torch.dropout(x, 0.5, self.training))
)";
  torch::jit::Module module = module_of(script);
  module.train();
  EXPECT_EQ(ops(lowered(module, {at::ones({2})})), (Ops{{"aten::relu", 1}}));
  EXPECT_TRUE(module.is_training());

  const torch::jit::Module fixed =
      module_of("def forward(self, x):\n    return torch.dropout(x, 0.5, True)\n");
  const std::string error = error_of([&] { lowered(fixed, {at::ones({2})}); });
  EXPECT_NE(error.find("aten::dropout"), std::string::npos) << error;
  EXPECT_NE(error.find("dropout in training mode is random"), std::string::npos) << error;
}

TEST(Lower, MakesInPlaceOpsFunctional) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    x.relu_()
    y = x + 1.0
    y.mul_(x)
    y.add_(2)
    return torch.sigmoid_(y)
)");
  const at::Tensor x = at::tensor({-1.0F, 2.0F});
  const Program program = lowered(module, {x});
  EXPECT_EQ(ops(program), (Ops{{"aten::add.Scalar", 2},
                               {"aten::mul.Tensor", 1},
                               {"aten::relu", 1},
                               {"aten::sigmoid", 1},
                               {"aten::type_as", 1}}));
  EXPECT_TRUE(at::equal(run_graph(program).at(0), at::sigmoid(at::tensor({2.0F, 8.0F}))));
  EXPECT_TRUE(at::equal(x, at::tensor({-1.0F, 2.0F})));
}

TEST(Lower, AMutationReachesTheViewsThatSeeIt) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    row = x.reshape(-1)
    x.relu_()
    return row + x.reshape(-1)
)");
  const Program program = lowered(module, {at::tensor({-1.0F, 2.0F}).reshape({1, 2})});
  EXPECT_EQ(ops(program).count("aten::relu_"), 0U);
  EXPECT_TRUE(at::equal(run_graph(program).at(0), at::tensor({0.0F, 4.0F})));
}

TEST(Lower, RefusesAModelThatChangesItsWeights) {
  const torch::jit::Module whole = module_of(R"(
def forward(self, x):
    self.b.add_(1)
    return x * self.b
)");
  const std::string error = error_of([&] { lowered(whole, {at::ones({2})}); });
  EXPECT_NE(error.find("aten::add_"), std::string::npos) << error;
  EXPECT_NE(error.find("the model changes 'b' as it runs"), std::string::npos) << error;
  const torch::jit::Module row = module_of(R"(
def forward(self, x):
    self.b[0].mul_(x)
    return x * self.b
)");
  const std::string view = error_of([&] { lowered(row, {at::ones({2})}); });
  EXPECT_NE(view.find("the model changes a tensor of its own as it runs"), std::string::npos)
      << view;
  // Only while it trains, as BatchNorm counts its batches: nothing to refuse.
  const torch::jit::Module counter = module_of(R"(
def forward(self, x):
    if self.training:
        self.b.add_(1)
    return x * self.b
)");
  EXPECT_EQ(ops(lowered(counter, {at::ones({2})})), (Ops{{"aten::mul.Tensor", 1}}));
}

TEST(Lower, ReadsATensorOnce) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    for i in range(3):
        x = torch.mm(x, self.w)
    return x
)");
  const Program program = lowered(module, {at::ones({2, 2})});
  EXPECT_EQ(ops(program), (Ops{{"aten::mm", 3}}));
  int constants = 0;
  for (const torch::jit::Node* node : program.graph->nodes()) {
    constants += node->kind() == torch::jit::prim::Constant ? 1 : 0;
  }
  EXPECT_EQ(constants, 1);
}

TEST(Lower, UnrollsConstantLoopsAndResolvesAppends) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    parts = [x]
    for i in range(3):
        parts.append(torch.cat(parts, 0) * float(i + 1))
    return torch.cat(parts, 0)
)");
  const Program program = lowered(module, {at::ones({1})});
  EXPECT_EQ(ops(program), (Ops{{"aten::cat", 4}, {"aten::mul.Scalar", 3}}));
  const at::Tensor expected = at::tensor({1, 1, 2, 2, 3, 3, 6, 6}, at::kFloat);
  EXPECT_TRUE(at::equal(run_graph(program).at(0), expected)) << run_graph(program).at(0);
}

TEST(Lower, DropsBranchesThatRaiseAlsoWithASharedCondition) {
  Program program = program_of_ir(R"(
graph(%x : Tensor):
  %message : str = prim::Constant[value="no"]()
  %none : NoneType = prim::Constant()
  %zero : int = prim::Constant[value=0]()
  %rank : int = aten::dim(%x)
  %bad : bool = aten::gt(%rank, %zero)
  prim::If(%bad)
    block0():
      -> ()
    block1():
      prim::RaiseException(%message, %none)
      -> ()
  %y : Tensor = prim::If(%bad)
    block0():
      %r : Tensor = aten::relu(%x)
      -> (%r)
    block1():
      prim::RaiseException(%message, %none)
      %u : Tensor = prim::Uninitialized()
      -> (%u)
  return (%y))",
                                  {at::ones({1})});
  lower(program);
  EXPECT_EQ(ops(program), (Ops{{"aten::relu", 1}}));
}

TEST(Lower, DropsABranchThatCastsNone) {
  // A mode of a scripted interpolate that the call does not use. Folding the cast would hand None
  // to an op that takes a bool, and libtorch's alias analysis (a write: it runs) asserts on that.
  Program program = program_of_ir(R"(
graph(%x : Tensor):
  %none : NoneType = prim::Constant()
  %one : int = prim::Constant[value=1]()
  %three : int = prim::Constant[value=3]()
  %sizes : int[] = prim::ListConstruct(%three)
  %rank : int = aten::dim(%x)
  %row : bool = aten::eq(%rank, %three)
  %y : Tensor = prim::If(%row)
    block0():
      %corners : bool = prim::unchecked_cast(%none)
      %a : Tensor = aten::upsample_linear1d(%x, %sizes, %corners, %none)
      -> (%a)
    block1():
      %b : Tensor = aten::relu(%x)
      -> (%b)
  %z : Tensor = aten::add_(%y, %one, %one)
  return (%z))",
                                  {at::ones({1})});
  lower(program);
  EXPECT_EQ(ops(program), (Ops{{"aten::add.Scalar", 1}, {"aten::relu", 1}}));
}

TEST(Lower, AnswersModeQueries) {
  Program program = program_of_ir(R"(
graph(%x : Tensor):
  %autocast : bool = aten::is_autocast_enabled()
  %y : Tensor = prim::If(%autocast)
    block0():
      %a : Tensor = aten::relu(%x)
      -> (%a)
    block1():
      %b : Tensor = aten::sigmoid(%x)
      -> (%b)
  %grad : bool = aten::is_grad_enabled()
  %z : Tensor = prim::If(%grad)
    block0():
      %c : Tensor = aten::relu(%y)
      -> (%c)
    block1():
      %d : Tensor = aten::tanh(%y)
      -> (%d)
  return (%z))",
                                  {at::ones({1})});
  lower(program);
  EXPECT_EQ(ops(program), (Ops{{"aten::relu", 1}, {"aten::tanh", 1}}));
}

TEST(Lower, FoldsIntegersBehindNumToTensor) {
  Program program = program_of_ir(R"(
graph(%x : Tensor):
  %zero : int = prim::Constant[value=0]()
  %minus : int = prim::Constant[value=-1]()
  %n : int = aten::size(%x, %zero)
  %t : Tensor = prim::NumToTensor(%n)
  %i : int = aten::Int(%t)
  %shape : int[] = prim::ListConstruct(%i, %minus)
  %y : Tensor = aten::view(%x, %shape)
  return (%y))",
                                  {at::ones({2, 2})});
  lower(program);
  EXPECT_EQ(ops(program), (Ops{{"aten::size.int", 1}, {"aten::view", 1}}));
}

TEST(Lower, FlattensOutputsAndNamesThem) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    return x + 1, ([x + 2, x + 3], None)
)");
  const Program program = lowered(module, {at::ones({1})});
  EXPECT_EQ(program.graph->outputs().size(), 3U);
  EXPECT_EQ(program.output_names, (std::vector<std::string>{"output_0", "output_1", "output_2"}));
  EXPECT_EQ(program.notes,
            (std::vector<std::string>{"an output of the model is None and left out"}));

  ExportOptions options;
  options.output_names = {"a", "b"};
  EXPECT_EQ(error_of([&] { lowered(module, {at::ones({1})}, options); }),
            "output names: 2 given, the model has 3 outputs");
  options.output_names = {"a", "b", "c"};
  EXPECT_EQ(lowered(module, {at::ones({1})}, options).output_names, options.output_names);
}

TEST(Lower, DropsMessages) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    print("hello")
    return torch.relu(x)
)");
  EXPECT_EQ(ops(lowered(module, {at::ones({1})})), (Ops{{"aten::relu", 1}}));
}

TEST(Lower, QuantizedTensorsAreMovedOnTheirGrid) {
  const torch::jit::Module module = module_of(R"(
def forward(self, x):
    q = torch.quantize_per_tensor(x, 0.5, 3, 13)
    q = q.reshape([2, 3]).flip([0]).repeat([2, 1])
    a, b = q.view_as(torch.ones([4, 3])).chunk(2, 0)
    return a.dequantize(), torch.ones([2, 3]).expand_as(b)
)");
  const Program program = lowered(module, {at::arange(6, at::kFloat)});
  const Ops counts = ops(program);
  EXPECT_EQ(counts.at("aten::fake_quantize_per_tensor_affine"), 1);  // none behind what moves
  EXPECT_EQ(counts.count("aten::dequantize.self"), 0U);
  const at::Tensor expected = at::tensor({3, 4, 5, 0, 1, 2}, at::kFloat).reshape({2, 3});
  EXPECT_TRUE(at::equal(run_graph(program).at(0), expected)) << run_graph(program).at(0);

  const torch::jit::Module computes = module_of(R"(
def forward(self, x):
    return torch.quantize_per_tensor(x, 0.5, 3, 13).cumsum(0).dequantize()
)");
  EXPECT_NE(error_of([&] {
              lowered(computes, {at::ones({2})});
            }).find("aten::cumsum: no float form is known for it on quantised tensors"),
            std::string::npos);
}

}  // namespace
}  // namespace qcdq
