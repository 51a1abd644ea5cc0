// The graph of a TorchScript method: a 0-d constant of a trace is a number where torch's executor
// makes it one, and the run that verify compares with gives that executor's results.
#include "symbolic/program/method.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/symbolic/program_fixture.h"

namespace qcdq {
namespace {

/// `def forward(self, n): return EXPRESSION` where `self.b` is a literal, as in a trace.
torch::jit::Module traced(const std::string& expression, const at::Tensor& literal) {
  torch::jit::Module module = module_of("def forward(self, n):\n  return " + expression + "\n",
                                        at::ones({2}), at::ones({2}));
  auto graph = module.get_method("forward").graph();
  for (torch::jit::Node* node : graph->nodes()) {
    if (node->kind() != torch::jit::prim::GetAttr) continue;
    const torch::jit::WithInsertPoint guard(node);
    node->output()->replaceAllUsesWith(graph->insertConstant(literal));
  }
  return module;
}

at::ScalarType type_of_run(const torch::jit::Module& module, const at::Tensor& n) {
  return MethodRunner(module, "forward")({n}).toTensor().scalar_type();
}

TEST(MethodGraph, ZeroDimConstantsAreNumbersWhereTorchsExecutorHasThem) {
  const at::Tensor real = torch::scalar_tensor(1.91, at::kDouble);
  for (const at::Tensor& n : {at::arange(3), at::arange(3).to(at::kByte), at::arange(3) > 1,
                              at::ones({}), at::ones({2}, at::kHalf)}) {
    for (const char* expression :
         {"n + self.b", "self.b + n", "n * self.b", "n / self.b", "torch.sub(n.int(), self.b)",
          "n // self.b", "torch.maximum(n, self.b)", "n < self.b", "(n + 0 * self.b) / 3"}) {
      SCOPED_TRACE(std::string(expression) + " of " + c10::toString(n.scalar_type()));
      torch::jit::Module module = traced(expression, real);
      const at::Tensor expected = module.forward({n}).toTensor();  // torch's own executor
      const at::Tensor got = MethodRunner(module, "forward")({n}).toTensor();
      EXPECT_EQ(got.scalar_type(), expected.scalar_type());
      EXPECT_TRUE(at::equal(got, expected)) << got << expected;
    }
  }
}

TEST(MethodGraph, NumbersAreExactAndOthersStayTensors) {
  const int64_t large = (int64_t{1} << 53) + 1;
  const torch::jit::Module module = traced("n + self.b", torch::scalar_tensor(large, at::kLong));
  const auto sum = MethodRunner(module, "forward")({at::zeros({2}, at::kLong)}).toTensor();
  EXPECT_EQ(sum[0].item<int64_t>(), large);
  const auto overload = [](const torch::jit::Module& of) {
    const auto graph = method_graph(of, "forward");
    for (torch::jit::Node* node : graph->nodes()) {
      if (node->kind() == torch::jit::aten::add) return node->schema().overload_name();
    }
    return std::string("no add");
  };
  EXPECT_EQ(overload(module), "Scalar");
  EXPECT_EQ(overload(traced("n + self.b", at::ones({1}))), "Tensor");
  EXPECT_EQ(overload(traced("n + self.b", torch::scalar_tensor(true, at::kBool))), "Tensor");
  // A buffer is read when the model runs: it keeps its type.
  const torch::jit::Module buffer =
      module_of("def forward(self, n):\n  return n + self.b\n", at::ones({2}),
                torch::scalar_tensor(1.5, at::kDouble));
  EXPECT_EQ(overload(buffer), "Tensor");
  EXPECT_EQ(type_of_run(buffer, at::arange(3)), at::kDouble);
  EXPECT_EQ(
      type_of_run(traced("n + self.b", torch::scalar_tensor(1.5, at::kDouble)), at::arange(3)),
      at::kFloat);
}

TEST(MethodRunner, FillsDefaultsAndChecksArguments) {
  const torch::jit::Module module = module_of("def scaled(self, n, k: int = 3):\n  return n * k\n");
  MethodRunner run(module, "scaled");
  EXPECT_EQ(run({at::ones({1})}).toTensor().item<float>(), 3);
  EXPECT_EQ(run({at::ones({1}), 5}).toTensor().item<float>(), 5);
  EXPECT_NE(error_of([&] { run({}); }).find("missing value for argument 'n'"), std::string::npos);
}

}  // namespace
}  // namespace qcdq
