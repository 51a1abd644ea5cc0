// Lowering passes for writes that upstream's RemoveTensorMutation gets wrong or leaves: element
// types of in-place ops, and writes to views (x[:, 0] = 0). See lower/passes.h.
#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "symbolic/lower/passes.h"
#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::AliasDb;
using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Symbol;
using JitValue = torch::jit::Value;
using torch::jit::WithInsertPoint;
namespace aten = torch::jit::aten;
namespace prim = torch::jit::prim;

namespace {

bool is_tensor(const JitValue* value) { return value->type()->kind() == c10::TypeKind::TensorType; }

/// "aten::add_" -> "aten::add"; "" where the node is no in-place op.
std::string functional_name(const Node& node) {
  const c10::FunctionSchema* schema = node.maybeSchema();
  if (schema == nullptr || !schema->is_mutable() || node.outputs().size() != 1) return "";
  const std::string name = node.kind().toQualString();
  if (!name.ends_with('_') || name.ends_with("__") || node.inputs().empty()) return "";
  return is_tensor(node.input(0)) ? name.substr(0, name.size() - 1) : "";
}

Node* insert(Graph& graph, Node* like, const char* op, const std::vector<JitValue*>& inputs) {
  Node* node = graph.create(Symbol::fromQualString(op), inputs, 1);
  node->copyMetadata(like);
  node->output()->setType(c10::TensorType::get());
  return graph.insertNode(node);
}

/// A functional op whose result can have another element type than its first input: by promotion
/// with another tensor, or because it is a comparison.
bool may_change_type(const Node& node) {
  if (!node.kind().is_aten() || !is_tensor(node.input(0))) return false;
  if (node.kind() == aten::type_as) return false;  // what this is asked for inserts it
  const OpTraits traits = traits_of(node);
  if (has_traits(traits, OpTraits::kKeepsElementType)) return false;
  return has_traits(traits, OpTraits::kBoolResult) ||
         std::any_of(node.inputs().begin() + 1, node.inputs().end(), is_tensor);
}

void visit_nodes(Block* block, const std::function<void(Node*)>& visit) {
  for (Node* node : block->nodes()) {
    visit(node);
    for (Block* inner : node->blocks()) visit_nodes(inner, visit);
  }
}

/// Views that can be written back into what they are a view of.
bool is_known_view(const Node& node) {
  if (node.kind() == aten::slice || node.kind() == aten::select) {
    return node.inputs().size() > 2 && is_tensor(node.input(0));
  }
  return node.kind() == aten::unsqueeze || node.kind() == aten::transpose ||
         node.kind() == aten::alias || node.kind() == aten::detach ||
         (node.kind() == aten::squeeze && node.inputs().size() == 2 &&
          node.input(1)->type()->kind() == c10::TypeKind::IntType);
}

/// The tensor that `view` is a view of, with `part` in the place of the view.
JitValue* written_back(Graph& graph, Node* view, JitValue* part, Node* like) {
  const std::vector<JitValue*> in = view->inputs().vec();
  if (view->kind() == aten::slice) {
    return insert(graph, like, "aten::slice_scatter", {in[0], part, in[1], in[2], in[3], in[4]})
        ->output();
  }
  if (view->kind() == aten::select) {
    return insert(graph, like, "aten::select_scatter", {in[0], part, in[1], in[2]})->output();
  }
  if (view->kind() == aten::transpose) {
    return insert(graph, like, "aten::transpose", {part, in[1], in[2]})->output();
  }
  if (view->kind() == aten::unsqueeze || view->kind() == aten::squeeze) {
    return insert(graph, like, "aten::view_as", {part, in[0]})->output();
  }
  return part;  // alias, detach
}

class ViewWrites {
 public:
  explicit ViewWrites(const GraphPtr& graph) : graph_(*graph), aliases_(graph) {
    visit_nodes(graph->block(), [&](Node* node) {
      if (node->kind() == prim::Constant && is_tensor(node->output())) {
        constants_.insert(node->output());
      }
    });
  }

  /// Makes the first write to a tensor or a view of one functional; false where there is none that
  /// can be.
  bool run(Block* block) {
    for (Node* node : block->nodes()) {
      for (Block* inner : node->blocks()) {
        if (run(inner)) return true;
      }
      if (!functional_name(*node).empty() && rewrite(node)) return true;
    }
    return false;
  }

 private:
  static JitValue* base_of(JitValue* value) {
    while (is_known_view(*value->node())) value = value->node()->input(0);
    return value;
  }

  bool rewrite(Node* write) {
    JitValue* base = base_of(write->input(0));
    Block* block = write->owningBlock();
    // What a loop carries may be seen outside the loop too.
    if (base->node()->kind() == prim::Param && block != graph_.block()) return false;
    if (base->node()->owningBlock() != block || aliases_.mayAlias({base}, constants_)) {
      return false;  // seen by code outside this block, or a weight
    }
    // Every other value that shares the storage must be a view that can be taken anew.
    std::vector<Node*> stale;
    if (!find_stale(write, base, stale)) return false;

    std::vector<JitValue*> arguments = write->inputs().vec();
    WithInsertPoint guard(write);
    Node* changed = insert(graph_, write, functional_name(*write).c_str(), arguments);
    if (changed->maybeOperator() == nullptr) {
      changed->destroy();
      return false;
    }
    JitValue* part = changed->output();
    if (may_change_type(*changed)) {
      part = insert(graph_, write, "aten::type_as", {part, arguments[0]})->output();
    }
    write->output()->replaceAllUsesWith(part);
    for (JitValue* value = arguments[0]; value != base; value = value->node()->input(0)) {
      part = written_back(graph_, value->node(), part, write);
    }
    base->replaceAllUsesAfterNodeWith(write, part);
    retake(write, base, part, stale);
    write->destroy();
    return true;
  }

  /// Views of `base` from before the write that are used after it. False where something else may
  /// share its storage.
  bool find_stale(Node* write, JitValue* base, std::vector<Node*>& stale) {
    bool known = true;
    visit_nodes(graph_.block(), [&](Node* node) {
      if (node == write || node->kind() == prim::Constant) return;
      for (JitValue* output : node->outputs()) {
        if (output == base) continue;
        if (is_container(output)) {  // one from before the write keeps the old value
          const bool kept = node->isBefore(write) && !unused_after(output, write);
          known &= !kept || !aliases_.mayContainAlias(base, output);
          continue;
        }
        if (!is_tensor(output) || !aliases_.mayAlias(output, base)) continue;
        if (base_of(output) != base || node->owningBlock() != write->owningBlock()) {
          // What comes later shares the new value as soon as its input does.
          known &= !node->isBefore(write) || unused_after(output, write);
        } else if (node->isBefore(write) && !unused_after(output, write)) {
          stale.push_back(node);
        }
      }
    });
    for (JitValue* input : graph_.inputs()) {
      known &= input == base || !is_tensor(input) || !aliases_.mayAlias(input, base);
    }
    return known;
  }

  static bool is_container(const JitValue* value) {
    const c10::TypeKind kind = value->type()->kind();
    return kind == c10::TypeKind::ListType || kind == c10::TypeKind::TupleType ||
           kind == c10::TypeKind::DictType || kind == c10::TypeKind::ClassType;
  }

  static bool unused_after(JitValue* value, Node* write) {
    for (const torch::jit::Use& use : value->uses()) {
      if (use.user->kind() == prim::Return || use.user->isAfter(write)) return false;
    }
    return true;
  }

  void retake(Node* write, JitValue* base, JitValue* part, const std::vector<Node*>& stale) {
    std::unordered_map<JitValue*, JitValue*> fresh = {{base, part}};
    for (Node* node : stale) {
      for (JitValue* value = node->output(); value != base; value = value->node()->input(0)) {
        if (fresh.count(value) == 0) take(value, write, fresh);
      }
    }
    for (Node* node : stale) {
      node->output()->replaceAllUsesAfterNodeWith(write, fresh.at(node->output()));
    }
  }

  JitValue* take(JitValue* value, Node* write, std::unordered_map<JitValue*, JitValue*>& fresh) {
    if (const auto found = fresh.find(value); found != fresh.end()) return found->second;
    JitValue* source = take(value->node()->input(0), write, fresh);
    std::vector<JitValue*> inputs = value->node()->inputs().vec();
    inputs[0] = source;
    JitValue* made =
        insert(graph_, value->node(), value->node()->kind().toQualString(), inputs)->output();
    fresh[value] = made;
    return made;
  }

  Graph& graph_;
  AliasDb aliases_;
  torch::jit::ValueSet constants_;
};

}  // namespace

size_t newest_value(torch::jit::Graph& graph) {
  size_t newest = 0;
  visit_nodes(graph.block(), [&](Node* node) {
    for (const JitValue* output : node->outputs()) newest = std::max(newest, output->unique());
  });
  return newest;
}

bool keep_self_types(torch::jit::Graph& graph, size_t newest_before) {
  std::vector<Node*> made;
  visit_nodes(graph.block(), [&](Node* node) {
    const bool fresh = node->outputs().size() == 1 && node->output()->unique() > newest_before;
    if (fresh && !node->inputs().empty() && may_change_type(*node)) made.push_back(node);
  });
  for (Node* node : made) {
    WithInsertPoint guard(node->next());
    Node* same = insert(graph, node, "aten::type_as", {node->output(), node->input(0)});
    node->output()->replaceAllUsesAfterNodeWith(same, same->output());
  }
  return !made.empty();
}

bool functionalize_view_writes(const GraphPtr& graph) {
  bool changed = false;
  // The alias analysis is stale after a change.
  while (ViewWrites(graph).run(graph->block())) changed = true;
  return changed;
}

}  // namespace qcdq
