// Constant folding that leaves quantisers alone: upstream's ConstantPropagation and freeze_module
// both fold fake_quantize(weight) to a float constant, and the weight's Q/DQ is gone.
#include <ATen/core/grad_mode.h>
#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <algorithm>
#include <utility>

#include "symbolic/lower/passes.h"
#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::AliasDb;
using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Stack;
using JitValue = torch::jit::Value;
namespace prim = torch::jit::prim;

namespace {

using Paths = std::unordered_map<const void*, std::string>;

constexpr size_t kLargestFoldedTensor = size_t{1} << 20;  // bytes

bool never_fold(const Node& node) {
  // Only aten and prim: another library's op may be a quantiser (qcdq::, quantized_decomposed::).
  if (!node.kind().is_aten() && !node.kind().is_prim()) return true;
  if (casts_none(node) || has_traits(traits_of(node), OpTraits::kNeverFold)) return true;
  switch (node.kind()) {
    case prim::Constant:
    case prim::GetAttr:
    case prim::SetAttr:
    case prim::Uninitialized:
    case prim::ListConstruct:  // constant_value() sees through these, and a list may grow later
    case prim::TupleConstruct:
    case prim::DictConstruct:
    case prim::RaiseException:
    case prim::isinstance:  // by static type, in remove_casts
      return true;
    default:
      return false;
  }
}

bool is_large(const c10::IValue& value) {
  if (value.isTensor() && value.toTensor().defined()) {
    return value.toTensor().nbytes() > kLargestFoldedTensor;
  }
  if (value.isTensorList()) {
    size_t bytes = 0;
    for (const at::Tensor& tensor : value.toTensorVector()) bytes += tensor.nbytes();
    return bytes > kLargestFoldedTensor;
  }
  return false;
}

bool holds_tensors(const JitValue* value) {
  const c10::TypePtr& type = value->type();
  return type->isSubtypeOf(*c10::TensorType::get()) ||
         type->isSubtypeOf(*c10::ListType::ofTensors());
}

/// An op that returns a view of its input.
bool is_view(const Node& node) {
  const c10::FunctionSchema* schema = node.maybeSchema();
  if (schema == nullptr || schema->returns().size() != 1) return false;
  const c10::AliasInfo* alias = schema->returns()[0].alias_info();
  return alias != nullptr && !alias->isWrite() && !has_traits(traits_of(node), OpTraits::kMayCopy);
}

/// A tensor that shares the storage of an argument, and is no larger (expand() is, once written).
bool is_view_of(const c10::IValue& value, const Stack& arguments) {
  if (!value.isTensor()) return false;
  const at::Tensor& tensor = value.toTensor();
  return std::any_of(arguments.begin(), arguments.end(), [&](const c10::IValue& argument) {
    return argument.isTensor() && argument.toTensor().defined() &&
           tensor.is_alias_of(argument.toTensor()) && tensor.numel() <= argument.toTensor().numel();
  });
}

/// Inserts a value as a constant (a list of tensors: as a ListConstruct), or returns nullptr.
JitValue* insert_constant(Graph& graph, const c10::IValue& value) {
  if (value.isTensorList()) {
    std::vector<JitValue*> elements;
    for (const at::Tensor& tensor : value.toTensorVector()) {
      elements.push_back(graph.insertConstant(tensor));
    }
    return graph.insertNode(graph.createList(c10::TensorType::get(), elements))->output();
  }
  const auto constant = torch::jit::tryInsertConstant(graph, value);
  return constant ? *constant : nullptr;
}

class Folder {
 public:
  Folder(const GraphPtr& graph, Paths& paths) : graph_(*graph), paths_(paths) {
    if (has_mutation(graph->block())) aliases_ = std::make_unique<AliasDb>(graph);
  }

  bool run(Block* block) {
    bool changed = false;
    for (auto it = block->nodes().begin(); it != block->nodes().end();) {
      Node* node = *it;
      ++it;
      for (Block* inner : node->blocks()) changed |= run(inner);
      if (node->kind() == prim::If) {
        changed |= inline_branch(node);
      } else if (node->kind() == prim::Loop) {
        changed |= drop_loop(node);
      } else if (node->blocks().empty()) {
        changed |= fold(node);
      }
    }
    return changed;
  }

 private:
  static bool inline_branch(Node* node) {
    const auto condition = torch::jit::toIValue(node->input(0));
    if (!condition || !condition->isBool()) return false;
    Block* branch = node->blocks()[condition->toBool() ? 0 : 1];
    for (auto it = branch->nodes().begin(); it != branch->nodes().end();) {
      Node* moved = *it;
      ++it;
      moved->moveBefore(node);
    }
    for (size_t i = 0; i < node->outputs().size(); ++i) {
      node->output(i)->replaceAllUsesWith(branch->outputs()[i]);
    }
    node->destroy();
    return true;
  }

  static bool drop_loop(Node* node) {
    const auto trips = torch::jit::toIValue(node->input(0));
    const auto condition = torch::jit::toIValue(node->input(1));
    const bool never = (trips && trips->isInt() && trips->toInt() <= 0) ||
                       (condition && condition->isBool() && !condition->toBool());
    if (!never) return false;
    for (size_t i = 0; i < node->outputs().size(); ++i) {
      node->output(i)->replaceAllUsesWith(node->input(i + 2));
    }
    node->destroy();
    return true;
  }

  bool fold(Node* node) {
    if (node->outputs().empty() || never_fold(*node)) return false;
    if (node->kind() != prim::ListUnpack && node->kind() != prim::TupleUnpack &&
        node->kind() != prim::TupleIndex) {
      const c10::FunctionSchema* schema = node->maybeSchema();
      if (schema == nullptr || schema->is_mutable()) return false;
      if (node->hasSideEffects() || node->isNondeterministic()) return false;
    }
    Stack inputs;
    for (JitValue* input : node->inputs()) {
      auto value = constant_value(input);
      if (!value) return false;
      inputs.push_back(std::move(*value));
    }
    // Large weights: only views of them, which take no memory.
    const bool makes_tensors =
        std::any_of(node->outputs().begin(), node->outputs().end(), holds_tensors);
    const bool large = makes_tensors && std::any_of(inputs.begin(), inputs.end(), is_large);
    if (large && !is_view(*node)) return false;
    if (aliases_ && aliases_->hasWriters(node)) return false;

    Stack outputs;
    const Stack arguments = inputs;
    try {
      const at::NoGradGuard no_grad;
      outputs = run_node(*node, std::move(inputs));
    } catch (const std::exception&) {
      return false;  // in a branch that is never taken, say; record() names it if it is
    }
    if (outputs.size() != node->outputs().size()) return false;
    for (const c10::IValue& output : outputs) {
      if (is_large(output) && !is_view_of(output, arguments)) return false;
    }
    return replace(node, arguments, outputs);
  }

  bool replace(Node* node, const Stack& inputs, Stack& outputs) {
    torch::jit::WithInsertPoint guard(node);
    std::vector<JitValue*> constants;
    for (c10::IValue& output : outputs) {
      if (output.isTensor() && output.toTensor().defined()) {
        output = named(output.toTensor(), inputs);
      }
      JitValue* constant = insert_constant(graph_, output);
      if (constant == nullptr) return false;  // DCE takes those that went in
      constants.push_back(constant);
    }
    for (size_t i = 0; i < constants.size(); ++i) {
      node->output(i)->replaceAllUsesWith(constants[i]);
    }
    node->destroy();
    return true;
  }

  /// The folded tensor, under the name of the one that it was made from.
  at::Tensor named(const at::Tensor& tensor, const Stack& inputs) {
    for (const c10::IValue& input : inputs) {
      if (!input.isTensor() || !input.toTensor().defined()) continue;
      const at::Tensor& source = input.toTensor();
      if (source.sizes() == tensor.sizes() && source.strides() == tensor.strides() &&
          source.const_data_ptr() == tensor.const_data_ptr()) {
        return source;  // contiguous(), detach() and the like
      }
      const auto path = paths_.find(source.const_data_ptr());
      if (path == paths_.end() || tensor.numel() == 0) continue;
      paths_.emplace(tensor.const_data_ptr(), std::string(path->second));
      break;
    }
    return tensor;
  }

  Graph& graph_;
  Paths& paths_;
  std::unique_ptr<AliasDb> aliases_;
};

}  // namespace

bool has_mutation(Block* block) {
  for (Node* node : block->nodes()) {
    for (Block* inner : node->blocks()) {
      if (has_mutation(inner)) return true;
    }
    const c10::FunctionSchema* schema = node->maybeSchema();
    if (node->kind() == prim::SetAttr || (schema != nullptr && schema->is_mutable())) return true;
  }
  return false;
}

bool fold_constants(const GraphPtr& graph, Paths& paths) {
  return Folder(graph, paths).run(graph->block());
}

}  // namespace qcdq
