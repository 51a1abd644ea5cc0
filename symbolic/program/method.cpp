// See method.h.
#include "symbolic/program/method.h"

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/inliner.h>

#include <optional>
#include <utility>

namespace qcdq {
namespace {

using torch::jit::Node;
namespace aten = torch::jit::aten;

/// The number that a constant 0-d tensor holds. Booleans and complex numbers stay tensors.
std::optional<c10::IValue> number_in(const torch::jit::Value* value) {
  if (value->node()->kind() != torch::jit::prim::Constant) return std::nullopt;
  const std::optional<c10::IValue> constant = torch::jit::toIValue(value);
  if (!constant || !constant->isTensor() || !constant->toTensor().defined()) return std::nullopt;
  const at::Tensor& tensor = constant->toTensor();
  if (tensor.dim() != 0 || tensor.layout() != at::kStrided) return std::nullopt;
  if (tensor.is_floating_point()) return tensor.item<double>();
  if (c10::isIntegralType(tensor.scalar_type(), /*includeBool=*/false))
    return tensor.item<int64_t>();
  return std::nullopt;
}

void take_numbers(torch::jit::Block* block) {
  for (Node* node : block->nodes()) {
    for (torch::jit::Block* inner : node->blocks()) take_numbers(inner);
    const auto kind = node->kind();
    const bool sum = (kind == aten::add || kind == aten::sub) && node->inputs().size() == 3;
    const bool product = (kind == aten::mul || kind == aten::div) && node->inputs().size() == 2;
    if (!sum && !product) continue;
    const std::optional<c10::IValue> number = number_in(node->input(1));
    if (!number) continue;
    const torch::jit::WithInsertPoint guard(node);
    node->replaceInput(1, node->owningGraph()->insertConstant(*number));
  }
}

}  // namespace

std::shared_ptr<torch::jit::Graph> method_graph(const torch::jit::Module& module,
                                                const std::string& name) {
  std::shared_ptr<torch::jit::Graph> graph = module.get_method(name).graph()->copy();
  torch::jit::Inline(*graph);
  take_numbers(graph->block());
  return graph;
}

MethodRunner::MethodRunner(const torch::jit::Module& module, const std::string& name)
    : module_(module), name_(name), executor_(method_graph(module, name), name) {}

c10::IValue MethodRunner::operator()(const std::vector<c10::IValue>& arguments) {
  torch::jit::Stack stack = {module_._ivalue()};
  stack.insert(stack.end(), arguments.begin(), arguments.end());
  module_.get_method(name_).function().getSchema().checkAndNormalizeInputs(stack, {});
  const torch::jit::GraphOptimizerEnabledGuard plain(false);
  executor_.run(stack);
  return std::move(stack.at(0));
}

}  // namespace qcdq
