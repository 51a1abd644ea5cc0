// The walk itself: control flow, containers and views. lower/mutation.cpp has its writes.
#include "symbolic/lower/alias_walk.h"

#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>

#include "symbolic/lower/aliases.h"

namespace qcdq {

using torch::jit::Block;
using torch::jit::Node;
using JitValue = torch::jit::Value;
namespace prim = torch::jit::prim;

namespace {

constexpr const char* kClone = "clone() the tensor before one of the two";

/// The node in `block` that is `user`, or holds it.
Node* place_in(Block* block, Node* user) {
  while (user->owningBlock() != block) user = user->owningBlock()->owningNode();
  return user;
}

bool is_container_op(const Node& node) {
  return node.kind() == prim::ListConstruct || node.kind() == prim::TupleConstruct ||
         node.kind() == prim::DictConstruct;
}

}  // namespace

WriteFindings AliasWalk::run() {
  find_changed_lists(graph_.block());
  for (JitValue* input : graph_.inputs()) {
    if (may_hold_tensors(input->type())) make_fresh(input);
  }
  walk(graph_.block());
  // Last first: what a dead node made is used by dead nodes only.
  for (auto node = dead_.rbegin(); node != dead_.rend(); ++node) (*node)->destroy();
  return std::move(found_);
}

/// Lists and dicts that some op changes: they are no more what they were made of.
void AliasWalk::find_changed_lists(Block* block) {
  for (Node* node : block->nodes()) {
    for (Block* inner : node->blocks()) find_changed_lists(inner);
    for (size_t place : written_inputs(*node)) {
      JitValue* target = node->input(place);
      if (is_tensor(target)) continue;
      while (!written_inputs(*target->node()).empty()) target = target->node()->input(0);
      if (is_container_op(*target->node())) {
        changed_lists_.insert(target);
      } else {
        any_list_changes_ = true;
      }
    }
  }
}

AliasWalk::Object* AliasWalk::find(const JitValue* value) const {
  const auto found = objects_.find(value);
  return found == objects_.end() ? nullptr : found->second;
}

void AliasWalk::bind(const JitValue* value, Object* object) { objects_[value] = object; }

AliasWalk::Object* AliasWalk::bind_new(const JitValue* value) {
  return objects_[value] = &all_objects_.emplace_back();
}

AliasWalk::Alias* AliasWalk::new_alias(Base* base, Alias* parent, ViewStep step, JitValue* value) {
  return &all_aliases_.emplace_back(Alias{base, parent, step, value, base->version});
}

void AliasWalk::make_fresh(JitValue* value) {
  Base*& base = bases_[value];
  if (base == nullptr) base = &all_bases_.emplace_back(Base{value});
  base->frozen = applies() && plan_->blocked.count(value) != 0;
  bind_new(value)->alias = new_alias(base, nullptr, {}, value);
  if (applies() && !base->frozen && plan_->written.count(value) != 0)
    fill_empty(*find(value)->alias);
}

void AliasWalk::make_shared(const JitValue* value, const std::map<Base*, size_t>& shares) {
  bind_new(value)->shares = shares;
}

/// Adds the memory of `object`; the oldest version of each counts.
void AliasWalk::collect(const Object& object, std::map<Base*, size_t>& shares) const {
  const auto add = [&](Base* base, size_t version) {
    const auto [entry, added] = shares.emplace(base, version);
    if (!added) entry->second = std::min(entry->second, version);
  };
  if (object.alias != nullptr) add(object.alias->base, object.alias->base->version);
  for (const Object* element : object.elements) {
    if (element != nullptr) collect(*element, shares);
  }
  for (const auto& [base, version] : object.shares) add(base, version);
}

void AliasWalk::block(Base& base, Node* node, const char* reason, const char* hint) {
  found_.blocked.emplace(base.origin, BlockedWrite{node, reason, hint});
}

void AliasWalk::block_all(const Object& object, Node* node, const char* reason, const char* hint) {
  std::map<Base*, size_t> shares;
  collect(object, shares);
  for (const auto& [base, version] : shares) {
    found_.written.insert(base->origin);
    block(*base, node, reason, hint);
  }
}

void AliasWalk::walk(Block* block) {
  for (Node* node : block->nodes()) visit(node);
  Node* end = block->return_node();
  for (size_t i = 0; i < end->inputs().size(); ++i) use_newest(end, i);
}

void AliasWalk::visit(Node* node) {
  for (size_t i = 0; i < node->inputs().size(); ++i) use_newest(node, i);
  if (node->kind() == prim::If) return visit_if(node);
  if (node->kind() == prim::Loop) return visit_loop(node);
  if (is_container_op(*node)) return make_container(node);
  if (is_type_cast(*node)) {
    if (Object* object = find(node->input(0))) bind(node->output(), object);
    return;
  }
  if (!written_inputs(*node).empty()) return write(node);
  if (!take_elements(node) && !take_view_of(node)) make_outputs(node);
}

void AliasWalk::visit_if(Node* node) {
  for (Block* branch : node->blocks()) walk(branch);
  for (size_t i = 0; i < node->outputs().size(); ++i) {
    if (!may_hold_tensors(node->output(i)->type())) continue;
    Object* first = find(node->blocks()[0]->outputs()[i]);
    Object* second = find(node->blocks()[1]->outputs()[i]);
    if (first != nullptr && first == second) {
      bind(node->output(i), first);
      continue;
    }
    std::map<Base*, size_t> shares;
    for (const Object* object : {first, second}) {
      if (object != nullptr) collect(*object, shares);
    }
    make_shared(node->output(i), shares);
  }
}

/// What a loop carries may be any of what it begins with and what its body ends with.
void AliasWalk::visit_loop(Node* node) {
  Block* body = node->blocks()[0];
  std::vector<std::map<Base*, size_t>> carried(node->outputs().size());
  const auto add = [&](size_t i, const JitValue* value) {
    const size_t before = carried[i].size();
    if (const Object* object = find(value)) collect(*object, carried[i]);
    return carried[i].size() != before;
  };
  for (size_t i = 0; i < carried.size(); ++i) add(i, node->input(i + 2));
  // Making writes functional changes the body, once; what is found here counts for that, too.
  for (bool grown = true; grown;) {
    grown = false;
    for (size_t i = 0; i < carried.size(); ++i) {
      if (may_hold_tensors(body->inputs()[i + 1]->type())) {
        make_shared(body->inputs()[i + 1], carried[i]);
      }
    }
    walk(body);
    for (size_t i = 0; i < carried.size(); ++i) grown |= add(i, body->outputs()[i + 1]);
    grown &= !applies();
  }
  for (size_t i = 0; i < carried.size(); ++i) {
    if (may_hold_tensors(node->output(i)->type())) make_shared(node->output(i), carried[i]);
  }
}

void AliasWalk::make_container(Node* node) {
  if (!may_hold_tensors(node->output()->type())) return;
  Object* object = bind_new(node->output());
  std::vector<Object*> elements;
  for (const JitValue* input : node->inputs()) elements.push_back(find(input));
  const bool changes = any_list_changes_ || changed_lists_.count(node->output()) != 0;
  if (node->kind() != prim::DictConstruct && !changes) {
    object->maker = node;
    object->elements = std::move(elements);
    return;
  }
  for (const Object* element : elements) {
    if (element != nullptr) collect(*element, object->shares);
  }
}

AliasWalk::Object* AliasWalk::part_of(Object& list, Node* node, size_t place, size_t output) {
  Object*& part = list.parts[place];
  if (part == nullptr) {
    part = &all_objects_.emplace_back();
    part->alias = new_alias(list.alias->base, list.alias, {node, output}, node->output(output));
  }
  return part;
}

/// Elements of lists and tuples that are known one by one.
bool AliasWalk::take_elements(Node* node) {
  const bool unpacks = node->kind() == prim::ListUnpack || node->kind() == prim::TupleUnpack;
  const bool picks = node->kind() == prim::TupleIndex || view_of(*node) == View::kElement;
  if (!unpacks && !picks) return false;
  Object* list = find(node->input(0));
  if (list == nullptr) return false;
  const auto index = unpacks ? std::nullopt : torch::jit::toIValue(node->input(1));
  if (!unpacks && (!index || !index->isInt() || index->toInt() < 0)) return false;
  const bool views = list->alias != nullptr && list->alias->parent != nullptr &&
                     node->kind() != prim::TupleUnpack && node->kind() != prim::TupleIndex;
  if (list->maker == nullptr && !views) return false;
  for (size_t i = 0; i < node->outputs().size(); ++i) {
    const size_t place = unpacks ? i : static_cast<size_t>(index->toInt());
    if (!may_hold_tensors(node->output(i)->type())) continue;
    if (views) {
      bind(node->output(i), part_of(*list, node, place, i));
    } else if (place < list->elements.size() && list->elements[place] != nullptr) {
      bind(node->output(i), list->elements[place]);
    }
  }
  return true;
}

bool AliasWalk::take_view_of(Node* node) {
  const View view = view_of(*node);
  if (view == View::kNone || view == View::kElement) return false;
  const Object* source = find(node->input(0));
  if (source == nullptr || source->alias == nullptr) return false;
  Base* base = source->alias->base;
  Alias* alias = new_alias(base, source->alias, {node, 0}, node->output());
  bind_new(node->output())->alias = alias;
  if (!applies() || base->frozen || !has_own_form(*node)) return true;
  // A view may not fit the strides of what the functional graph has; other forms are for writes.
  if (view == View::kReshaped || plan_->written.count(base->origin) != 0) {
    const NodeMaker make(node, node);
    set(*alias, take_view(make, alias->step, node->input(0)));
    dead_.push_back(node);
  }
  return true;
}

void AliasWalk::make_outputs(Node* node) {
  std::map<Base*, size_t> shares;
  for (const JitValue* input : node->inputs()) {
    if (const Object* object = find(input)) collect(*object, shares);
  }
  for (size_t i = 0; i < node->outputs().size(); ++i) {
    if (!may_hold_tensors(node->output(i)->type())) continue;
    if (may_share(*node, i) && !shares.empty()) {
      make_shared(node->output(i), shares);
    } else {
      make_fresh(node->output(i));
    }
  }
}

void AliasWalk::use_newest(Node* user, size_t place) {
  JitValue* value = user->input(place);
  Object* object = find(value);
  if (object == nullptr) return;
  JitValue* now = newest(*object, value, user);
  if (now == value) return;
  bind(now, object);
  user->replaceInput(place, now);
}

/// What stands for `value` where `user` reads it.
JitValue* AliasWalk::newest(Object& object, JitValue* value, Node* user) {
  if (object.alias != nullptr) {
    if (object.alias->base->frozen) return value;
    JitValue* now = newest(*object.alias, user);
    return object.alias->moved ? now : value;
  }
  if (object.maker != nullptr) return newest_container(object, value, user);
  for (const auto& [base, version] : object.shares) {
    if (version < base->version) {
      block(*base, user, "reads a tensor that may share memory with one that was written to",
            kClone);
    }
  }
  return value;
}

JitValue* AliasWalk::newest(Alias& alias, Node* user) {
  // A whole is never behind its base.
  if (alias.parent == nullptr || alias.version == alias.base->version) return alias.value;
  alias.version = alias.base->version;
  JitValue* source = newest(*alias.parent, user);
  if (!applies()) return alias.value;
  Node* place = place_in(alias.step.view->owningBlock(), user);
  alias.value = take_view(NodeMaker(place, alias.step.view), alias.step, source);
  alias.moved = true;
  return alias.value;
}

JitValue* AliasWalk::newest_container(Object& object, JitValue* value, Node* user) {
  std::vector<JitValue*> inputs = object.maker->inputs().vec();
  bool changed = false;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (object.elements[i] == nullptr) continue;
    JitValue* now = newest(*object.elements[i], inputs[i], user);
    changed |= now != inputs[i];
    inputs[i] = now;
  }
  if (!applies()) return value;
  if (changed) {
    Node* again = graph_.create(object.maker->kind(), inputs, 1);
    again->output()->setType(object.maker->output()->type());
    NodeMaker(place_in(object.maker->owningBlock(), user), object.maker).insert(again);
    object.maker = again;
    object.remade = true;
  }
  return object.remade ? object.maker->output() : value;
}

JitValue* AliasWalk::take_from(const Alias& alias, const Alias& top, JitValue* source,
                               const NodeMaker& make) {
  if (&alias == &top) return source;
  return take_view(make, alias.step, take_from(*alias.parent, top, source, make));
}

}  // namespace qcdq
