// Lowering of models that torch.ao has converted to integer kernels: quantised tensors become float
// ones on the same grid. quantized::linear, say, becomes linear -> fake_quantize over the unpacked
// weight, so that all that follows (record, convert, qdq passes) sees an ordinary fake-quantised
// model. The rules of the ops are in quantized_rules.cpp.
#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/ir/constants.h>

#include <vector>

#include "symbolic/lower/passes.h"
#include "symbolic/lower/quantized_rules.h"
#include "symbolic/program/program.h"
#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::Block;
using torch::jit::Node;
using JitValue = torch::jit::Value;
namespace prim = torch::jit::prim;

namespace {

bool is_quantized_constant(const Node& node) {
  if (node.kind() != prim::Constant ||
      !node.output()->type()->isSubtypeOf(*c10::TensorType::get())) {
    return false;
  }
  const auto value = torch::jit::toIValue(node.output());
  return value && value->isTensor() && value->toTensor().defined() &&
         value->toTensor().is_quantized();
}

bool makes_quantized(const Node& node) {
  if (node.kind().ns().toUnqualString() == std::string_view("quantized")) return true;
  const std::string_view name = node.kind().toUnqualString();
  if (node.kind().is_aten() && name.starts_with("quantize_per_")) return true;
  return is_quantized_constant(node);
}

bool any_of(Block* block, bool (*holds)(const Node&)) {
  for (Node* node : block->nodes()) {
    if (holds(*node)) return true;
    for (Block* inner : node->blocks()) {
      if (any_of(inner, holds)) return true;
    }
  }
  return false;
}

bool is_flag(JitValue* value, bool expected) {
  const auto constant = torch::jit::toIValue(value);
  if (!constant || !constant->isTensor() || constant->toTensor().numel() != 1) return false;
  return (constant->toTensor().item<double>() != 0) == expected;
}

// fused_moving_avg_obs_fake_quant with its observer off changes nothing: the fake quantiser alone.
void settle_observer(Node* node) {
  if (!is_flag(node->namedInput("observer_on"), false)) {
    refuse_node(*node, "an observer that changes its scale as the model runs has no form in ONNX",
                "call model.apply(torch.ao.quantization.disable_observer) before saving the model",
                "observer_on", is_flag(node->namedInput("observer_on"), true) ? "1" : "");
  }
  torch::jit::Graph& graph = *node->owningGraph();
  const torch::jit::WithInsertPoint guard(node);
  JitValue* result = node->input(0);
  if (!is_flag(node->namedInput("fake_quant_on"), false)) {
    const auto low = torch::jit::NamedValue(node->namedInput("quant_min"));
    const auto high = torch::jit::NamedValue(node->namedInput("quant_max"));
    JitValue* scale = node->namedInput("scale");
    JitValue* zero_point = node->namedInput("zero_point");
    const auto per_channel = torch::jit::toIValue(node->namedInput("per_row_fake_quant"));
    if (per_channel && per_channel->toBool()) {
      result =
          graph.insert(torch::jit::Symbol::aten("fake_quantize_per_channel_affine"),
                       {node->input(0), scale, zero_point, node->namedInput("ch_axis"), low, high});
    } else {
      result = graph.insert(torch::jit::Symbol::aten("fake_quantize_per_tensor_affine"),
                            {node->input(0), scale, zero_point, low, high});
    }
    result->node()->copyMetadata(node);
  }
  node->output(0)->replaceAllUsesWith(result);
  node->destroy();
}

}  // namespace

bool settle_observers(Block* block) {
  static const auto kFused = torch::jit::Symbol::aten("fused_moving_avg_obs_fake_quant");
  bool changed = false;
  for (auto it = block->nodes().begin(); it != block->nodes().end();) {
    Node* node = *it;
    ++it;
    for (Block* inner : node->blocks()) changed |= settle_observers(inner);
    if (node->kind() != kFused) continue;
    settle_observer(node);
    changed = true;
  }
  return changed;
}

bool lower_quantized(Program& program) {
  Block* block = program.graph->block();
  if (!any_of(block, makes_quantized)) return false;
  program.integer_kernels = true;
  // A branch that a shape decides goes once record() has run the model.
  if (any_of(block, [](const Node& node) { return !node.blocks().empty(); })) return false;
  QuantizedRules rules(program);
  for (auto it = block->nodes().begin(); it != block->nodes().end();) {
    Node* node = *it;
    ++it;
    rules.apply(node);
  }
  rules.finish();
  return true;
}

}  // namespace qcdq
