// A lowering pass for dicts: torchvision's segmentation models keep features in one and return one.
// See lower/passes.h.
#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/ir/constants.h>

#include <vector>

#include "symbolic/lower/passes.h"

namespace qcdq {

using torch::jit::Block;
using torch::jit::Node;
using torch::jit::Symbol;
using JitValue = torch::jit::Value;
namespace prim = torch::jit::prim;

namespace {

/// Position of `key` among the (key, value) inputs of a DictConstruct, -1 where it has none, -2
/// where a key is not constant.
int64_t position(const Node& dict, JitValue* key) {
  const auto wanted = torch::jit::toIValue(key);
  if (!wanted) return -2;
  int64_t found = -1;
  for (size_t i = 0; i + 1 < dict.inputs().size(); i += 2) {
    const auto one = torch::jit::toIValue(dict.input(i));
    if (!one) return -2;
    if (*one == *wanted) found = static_cast<int64_t>(i);
  }
  return found;
}

bool is_dict_op(const Node& node, const char* name) {
  return node.kind() == Symbol::fromQualString(name) && !node.inputs().empty() &&
         node.input(0)->type()->kind() == c10::TypeKind::DictType;
}

/// No write to the dict comes before `node` apart from the one that made this state, and no other
/// value may hold it.
bool is_settled(const Node& node) {
  for (const torch::jit::Use& use : node.input(0)->uses()) {
    const Node& user = *use.user;
    if (&user == &node) continue;
    const bool kept = user.kind() == prim::ListConstruct || user.kind() == prim::TupleConstruct ||
                      user.kind() == prim::DictConstruct || !user.blocks().empty() ||
                      user.owningBlock() != node.owningBlock();
    const c10::FunctionSchema* schema = user.maybeSchema();
    const bool writes = schema != nullptr && schema->is_mutable();
    if (kept || (writes && user.isBefore(&node))) return false;
  }
  return true;
}

bool resolve(Node* node) {
  torch::jit::Graph& graph = *node->owningGraph();
  if (node->kind() == Symbol::fromQualString("aten::dict") && node->inputs().empty()) {
    const auto& type = node->output()->type()->expectRef<c10::DictType>();
    Node* made = graph.createDict(type.getKeyType(), type.getValueType(), {}, {});
    made->insertBefore(node);
    node->output()->replaceAllUsesWith(made->output());
    node->destroy();
    return true;
  }
  const bool set = is_dict_op(*node, "aten::_set_item");
  const bool get = is_dict_op(*node, "aten::__getitem__");
  if ((!set && !get) || node->input(0)->node()->kind() != prim::DictConstruct) return false;
  Node* dict = node->input(0)->node();
  const int64_t at = position(*dict, node->input(1));
  if (dict->owningBlock() != node->owningBlock() || at == -2 || !is_settled(*node)) return false;
  if (get) {
    if (at < 0) return false;  // record() reports the missing key
    node->output()->replaceAllUsesWith(dict->input(static_cast<size_t>(at) + 1));
    node->destroy();
    return true;
  }
  std::vector<JitValue*> keys;
  std::vector<JitValue*> values;
  for (size_t i = 0; i + 1 < dict->inputs().size(); i += 2) {
    keys.push_back(dict->input(i));
    values.push_back(static_cast<int64_t>(i) == at ? node->input(2) : dict->input(i + 1));
  }
  if (at < 0) {
    keys.push_back(node->input(1));
    values.push_back(node->input(2));
  }
  const auto& type = dict->output()->type()->expectRef<c10::DictType>();
  Node* next = graph.createDict(type.getKeyType(), type.getValueType(), keys, values);
  next->copyMetadata(node);
  next->insertBefore(node);
  dict->output()->replaceAllUsesAfterNodeWith(node, next->output());
  node->destroy();
  return true;
}

}  // namespace

bool resolve_dicts(Block* block) {
  bool changed = false;
  for (auto it = block->nodes().begin(); it != block->nodes().end();) {
    Node* node = *it;
    ++it;
    for (Block* inner : node->blocks()) changed |= resolve_dicts(inner);
    changed |= resolve(node);
  }
  return changed;
}

}  // namespace qcdq
