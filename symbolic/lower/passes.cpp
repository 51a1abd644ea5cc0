// Small lowering passes of our own, where upstream has none or its own is faulty; lower.cpp calls
// them in order. See lower/passes.h for what each does.
#include "symbolic/lower/passes.h"

#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "qcdq/symbolic.h"
#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::Block;
using torch::jit::Node;
using torch::jit::Symbol;
using JitValue = torch::jit::Value;
using torch::jit::WithInsertPoint;
namespace aten = torch::jit::aten;
namespace prim = torch::jit::prim;

namespace {

/// Visits every node, inner blocks first; `visit` may destroy the node it gets.
bool for_each_node(Block* block, const std::function<bool(Node*)>& visit) {
  bool changed = false;
  for (auto it = block->nodes().begin(); it != block->nodes().end();) {
    Node* node = *it;
    ++it;
    for (Block* inner : node->blocks()) changed |= for_each_node(inner, visit);
    changed |= visit(node);
  }
  return changed;
}

bool replace_by_constant(Node* node, const c10::IValue& value) {
  WithInsertPoint guard(node);
  node->output()->replaceAllUsesWith(node->owningGraph()->insertConstant(value));
  node->destroy();
  return true;
}

bool replace_by(Node* node, JitValue* value) {
  node->output()->replaceAllUsesWith(value);
  node->destroy();
  return true;
}

bool raises(Block* block) {
  for (Node* node : block->nodes()) {
    if (node->kind() == prim::RaiseException) return true;
  }
  return false;
}

bool is_dropout(std::string_view name) {
  if (name.ends_with('_')) name.remove_suffix(1);
  return name == "dropout" || name == "feature_dropout" || name == "alpha_dropout" ||
         name == "feature_alpha_dropout";
}

/// The answer of an isinstance where the static type decides it; nothing where the value does.
std::optional<bool> static_isinstance(const Node& node) {
  const c10::TypePtr& type = node.input()->type();
  const auto& wanted = node.tys(torch::jit::attr::types);
  if (std::any_of(wanted.begin(), wanted.end(),
                  [&](const c10::TypePtr& one) { return type->isSubtypeOf(*one); })) {
    return true;
  }
  const bool open =
      type->kind() == c10::TypeKind::AnyType || type->kind() == c10::TypeKind::OptionalType ||
      type->kind() == c10::TypeKind::UnionType || type->kind() == c10::TypeKind::NumberType;
  return open ? std::nullopt : std::optional(false);
}

bool is_cast(const Node& node) {
  return node.kind() == prim::unchecked_cast || node.kind() == prim::unchecked_unwrap_optional ||
         node.kind() == aten::_unwrap_optional;
}

}  // namespace

bool casts_none(const Node& node) {
  return is_cast(node) && node.input()->mustBeNone() &&
         !c10::NoneType::get()->isSubtypeOf(*node.output()->type());
}

bool answer_mode_queries(Block* block) {
  static const Symbol autocast = Symbol::fromQualString("aten::is_autocast_enabled");
  static const Symbol autocast_cpu = Symbol::fromQualString("aten::is_autocast_cpu_enabled");
  static const Symbol grad = Symbol::fromQualString("aten::is_grad_enabled");
  return for_each_node(block, [](Node* node) {
    if (node->kind() == autocast || node->kind() == autocast_cpu) {
      return replace_by_constant(node, true);
    }
    if (node->kind() == grad) return replace_by_constant(node, false);
    return false;
  });
}

bool drop_raises(Block* block) {
  return for_each_node(block, [](Node* node) {
    if (node->kind() != prim::If || node->input(0)->node()->kind() == prim::Constant) return false;
    const bool first = raises(node->blocks()[0]);
    if (first == raises(node->blocks()[1])) return false;
    WithInsertPoint guard(node);
    node->replaceInput(0, node->owningGraph()->insertConstant(!first));
    return true;
  });
}

bool raise_casts_of_none(Block* block) {
  return for_each_node(block, [](Node* node) {
    if (!casts_none(*node)) return false;
    torch::jit::Graph& graph = *node->owningGraph();
    WithInsertPoint guard(node);
    JitValue* message =
        graph.insertConstant("None, expected " + node->output()->type()->repr_str());
    JitValue* type = graph.insertConstant(c10::IValue());
    graph.insertNode(graph.create(prim::RaiseException, {message, type}, 0))->copyMetadata(node);
    return replace_by(
        node, graph.insertNode(graph.createUninitialized(node->output()->type()))->output());
  });
}

bool remove_dropout(Block* block) {
  return for_each_node(block, [](Node* node) {
    if (!node->kind().is_aten() || !is_dropout(node->kind().toUnqualString())) return false;
    const auto p = torch::jit::toIValue(node->input(1));
    const auto train = torch::jit::toIValue(node->input(2));
    const bool identity = (train && train->isBool() && !train->toBool()) ||
                          (p && p->isDouble() && p->toDouble() == 0);
    if (!identity) return false;
    return replace_by(node, node->input(0));
  });
}

bool remove_messages(Block* block) {
  static const Symbol warn = Symbol::fromQualString("aten::warn");
  return for_each_node(block, [](Node* node) {
    if (node->kind() != warn && node->kind() != prim::Print) return false;
    node->destroy();
    return true;
  });
}

bool remove_casts(Block* block) {
  static const Symbol to_int = Symbol::fromQualString("aten::Int");
  static const Symbol to_float = Symbol::fromQualString("aten::Float");
  static const Symbol to_bool = Symbol::fromQualString("aten::Bool");
  static const Symbol int_implicit = Symbol::fromQualString("aten::IntImplicit");
  static const Symbol scalar_implicit = Symbol::fromQualString("aten::ScalarImplicit");
  return for_each_node(block, [](Node* node) {
    if (node->kind() == prim::isinstance) {
      const std::optional<bool> answer = static_isinstance(*node);
      return answer && replace_by_constant(node, *answer);
    }
    if (is_cast(*node)) {
      const c10::TypePtr& type = node->input()->type();
      const bool open =
          type->kind() == c10::TypeKind::OptionalType || type->kind() == c10::TypeKind::AnyType ||
          type->kind() == c10::TypeKind::UnionType || type->kind() == c10::TypeKind::NoneType;
      if (open || !type->isSubtypeOf(*node->output()->type())) return false;
      return replace_by(node, node->input());
    }
    if ((node->kind() == aten::__is__ || node->kind() == aten::__isnot__) &&
        node->input(0) == node->input(1)) {
      return replace_by_constant(node, node->kind() == aten::__is__);
    }
    const bool scalar = node->kind() == to_int || node->kind() == to_float ||
                        node->kind() == to_bool || node->kind() == int_implicit ||
                        node->kind() == scalar_implicit;
    if (!scalar || node->inputs().size() != 1) return false;
    JitValue* source = node->input();
    if (source->node()->kind() == prim::NumToTensor) source = source->node()->input();
    const bool same = source->type()->kind() == node->output()->type()->kind();
    return same && replace_by(node, source);
  });
}

bool resolve_appends(Block* block) {
  static const Symbol append = Symbol::fromQualString("aten::append");
  static const Symbol set_item = Symbol::fromQualString("aten::_set_item");
  return for_each_node(block, [](Node* node) {
    const bool sets = node->kind() == set_item;
    if (!sets && node->kind() != append) return false;
    if (node->input(0)->node()->kind() != prim::ListConstruct) return false;
    JitValue* list = node->input(0);
    if (list->node()->owningBlock() != node->owningBlock()) return false;
    for (const torch::jit::Use& use : list->uses()) {
      const auto kind = use.user->kind();
      const bool kept = kind == prim::ListConstruct || kind == prim::TupleConstruct ||
                        kind == prim::DictConstruct || !use.user->blocks().empty();
      if (kept || use.user->owningBlock() != node->owningBlock()) return false;
      // The first write to this state of the list; later ones see the list made below.
      const c10::FunctionSchema* schema = use.user->maybeSchema();
      if (schema != nullptr && schema->is_mutable() && use.user->isBefore(node)) return false;
    }
    std::vector<JitValue*> elements = list->node()->inputs().vec();
    if (sets) {
      const auto constant = torch::jit::toIValue(node->input(1));
      if (!constant || !constant->isInt()) return false;
      const auto size = static_cast<int64_t>(elements.size());
      const int64_t index = constant->toInt() + (constant->toInt() < 0 ? size : 0);
      if (index < 0 || index >= size) return false;  // record() names the op that fails
      elements[static_cast<size_t>(index)] = node->input(2);
    } else {
      elements.push_back(node->input(1));
    }
    const auto& type = list->type()->expectRef<c10::ListType>();
    Node* longer = node->owningGraph()->createList(type.getElementType(), elements);
    longer->copyMetadata(node);
    longer->insertBefore(node);
    list->replaceAllUsesAfterNodeWith(node, longer->output());
    node->output()->replaceAllUsesWith(longer->output());
    node->destroy();
    return true;
  });
}

std::unordered_set<const Node*> writes_to_constants(const GraphPtr& graph) {
  torch::jit::AliasDb aliases(graph);
  torch::jit::ValueSet constants;
  for_each_node(graph->block(), [&](Node* node) {
    if (node->kind() == prim::Constant &&
        node->output()->type()->kind() == c10::TypeKind::TensorType) {
      constants.insert(node->output());
    }
    return false;
  });
  std::unordered_set<const Node*> writes;
  for_each_node(graph->block(), [&](Node* node) {
    const c10::FunctionSchema* schema = node->maybeSchema();
    if (schema == nullptr || !schema->is_mutable()) return false;
    for (size_t i = 0; i < schema->arguments().size() && i < node->inputs().size(); ++i) {
      const c10::AliasInfo* info = schema->arguments()[i].alias_info();
      if (info == nullptr || !info->isWrite()) continue;
      if (node->input(i)->type()->kind() != c10::TypeKind::TensorType) continue;
      if (aliases.mayAlias(torch::jit::ValueSet{node->input(i)}, constants)) writes.insert(node);
    }
    return false;
  });
  return writes;
}

bool expand_repeated_lists(Block* block) {
  static const Symbol kTimes = Symbol::fromQualString("aten::mul");
  constexpr int64_t kLongest = 64;  // shapes; a long list is data
  return for_each_node(block, [](Node* node) {
    if (node->kind() != kTimes || node->input(0)->node()->kind() != prim::ListConstruct)
      return false;
    const auto count = torch::jit::toIValue(node->input(1));
    if (!count || !count->isInt() || node->input(0)->uses().size() != 1) return false;
    const auto elements = node->input(0)->node()->inputs();
    const int64_t repeats = std::max<int64_t>(count->toInt(), 0);
    if (repeats * static_cast<int64_t>(elements.size()) > kLongest) return false;
    std::vector<JitValue*> repeated;
    for (int64_t i = 0; i < repeats; ++i) {
      repeated.insert(repeated.end(), elements.begin(), elements.end());
    }
    const WithInsertPoint guard(node);
    const auto& type = node->output()->type()->expectRef<c10::ListType>();
    Node* list = node->owningGraph()->createList(type.getElementType(), repeated);
    node->owningGraph()->insertNode(list)->copyMetadata(node);
    return replace_by(node, list->output());
  });
}

}  // namespace qcdq
