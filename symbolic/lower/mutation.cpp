// Writes become values: a write to a tensor, or to a view of one, makes a newer version of the
// whole, and what is read later is taken from that. See lower/alias_walk.h.
#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qcdq/symbolic.h"
#include "symbolic/lower/alias_walk.h"
#include "symbolic/lower/aliases.h"
#include "symbolic/lower/passes.h"
#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::Node;
using torch::jit::Symbol;
using JitValue = torch::jit::Value;
namespace aten = torch::jit::aten;
namespace prim = torch::jit::prim;

namespace {

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

/// detach_, requires_grad_: they change neither elements nor shape.
bool writes_nothing(const Node& node) {
  const std::string_view name = node.kind().toQualString();
  return name == "aten::detach_" || name == "aten::requires_grad_";
}

/// In-place ops that give the tensor other memory or another size.
bool replaces_memory(const Node& node) {
  const std::string_view name = node.kind().toQualString();
  return name.starts_with("aten::resize") || name.starts_with("aten::set") ||
         name.starts_with("aten::as_strided_") || name.find("sparse") != std::string_view::npos;
}

/// The arguments in `places` are the last ones: the op writes its results there (add.out).
bool writes_its_results(const Node& node, const std::vector<size_t>& places) {
  for (size_t i = 0; i < places.size(); ++i) {
    if (places[i] != node.inputs().size() - places.size() + i) return false;
  }
  return places.size() == node.outputs().size() && places.front() > 0;
}

}  // namespace

bool WriteFindings::possible() const {
  return std::any_of(written.begin(), written.end(),
                     [&](const JitValue* base) { return blocked.count(base) == 0; });
}

/// The op that gives what `write` writes, not inserted yet; null where there is none.
Node* AliasWalk::functional_form(Node* write, const std::vector<size_t>& places) {
  std::string name = write->kind().toQualString();
  std::vector<JitValue*> inputs = write->inputs().vec();
  if (writes_its_results(*write, places)) {
    inputs.resize(places.front());
  } else if (places == std::vector<size_t>{0} && name.ends_with('_') && !name.ends_with("__") &&
             !replaces_memory(*write)) {
    name.pop_back();
  } else {
    return nullptr;
  }
  Node* made = graph_.create(Symbol::fromQualString(name), inputs, places.size());
  for (JitValue* output : made->outputs()) output->setType(c10::TensorType::get());
  if (made->maybeOperator() != nullptr && written_inputs(*made).empty()) return made;
  made->destroy();
  return nullptr;
}

void AliasWalk::write(Node* node) {
  const std::vector<size_t> places = written_inputs(*node);
  if (!is_tensor(node->input(places.front()))) return change_container(node);
  Object* object = find(node->input(places.front()));
  if (object != nullptr && object->alias != nullptr) {
    if (changes_own_shape(*node)) return change_shape(node, *object);
    if (writes_nothing(*node)) {
      bind(node->output(), object);
      found_.written.insert(object->alias->base->origin);
      if (applies() && !object->alias->base->frozen) {
        node->output()->replaceAllUsesWith(node->input(0));
        dead_.push_back(node);
      }
      return;
    }
  }
  const std::vector<Alias*> targets = targets_of(node, places);
  bind_results(node, places);
  Node* made = functional_form(node, places);
  if (made == nullptr) {
    for (const Alias* target : targets) {
      block(*target->base, node, "writes in place, and no other op gives what it writes",
            "use an op that returns a new tensor");
    }
  }
  const bool frozen =
      made == nullptr || targets.size() != places.size() ||
      std::any_of(targets.begin(), targets.end(), [](const Alias* a) { return a->base->frozen; });
  if (!applies() || frozen) {
    if (made != nullptr) made->destroy();
    for (const Alias* target : targets) ++target->base->version;
    return;
  }
  const NodeMaker make(node, node);
  make.insert(made);
  for (size_t i = 0; i < targets.size(); ++i) {
    JitValue* self = node->input(places[i]);
    JitValue* part = made->output(i);
    if (places.front() > 0 || may_change_type(*made)) part = make.op("aten::type_as", {part, self});
    store(*targets[i], part, node);
  }
  dead_.push_back(node);
}

/// The tensors that the op writes to, fewer where one is not known exactly.
std::vector<AliasWalk::Alias*> AliasWalk::targets_of(Node* node,
                                                     const std::vector<size_t>& places) {
  std::vector<Alias*> targets;
  bool exact = true;
  for (size_t place : places) {
    const Object* object = find(node->input(place));
    if (object == nullptr || object->alias == nullptr) {
      exact = false;
      if (object == nullptr) continue;
      block_all(*object, node, "writes to a tensor that may be one of several",
                "write to each of them, or use torch.where");
    } else {
      check_target(node, *object->alias);
      targets.push_back(object->alias);
    }
  }
  for (const Alias* target : targets) {
    if (exact) break;
    block(*target->base, node, "writes to several tensors, one of which is not known",
          "write to each of them by an op of its own");
  }
  return targets;
}

/// Notes what stands against a functional write to `target`.
void AliasWalk::check_target(Node* node, const Alias& target) {
  Base& base = *target.base;
  found_.written.insert(base.origin);
  if (base.origin->node()->kind() == prim::Constant) {
    block(base, node, "the model changes a tensor of its own as it runs",
          "make the state an input and an output of the model");
    return;
  }
  if (base.origin->node()->owningBlock() != node->owningBlock()) {
    block(base, node, "a write in a branch or loop that depends on data",
          "rewrite it with torch.where, or trace the module");
    return;
  }
  for (const Alias* alias = &target; alias->parent != nullptr; alias = alias->parent) {
    if (can_put_back(alias->step)) continue;
    block(base, node, "writes to a view whose arguments are known at run time only",
          "write to the tensor that it is a view of");
    return;
  }
}

/// An in-place op returns the tensors that it writes to.
void AliasWalk::bind_results(Node* node, const std::vector<size_t>& places) {
  for (size_t i = 0; i < node->outputs().size(); ++i) {
    Object* object = i < places.size() ? find(node->input(places[i])) : nullptr;
    if (object != nullptr) {
      bind(node->output(i), object);
    } else if (may_hold_tensors(node->output(i)->type())) {
      make_fresh(node->output(i));
    }
  }
}

/// append, _set_item, pop: the list may hold what it is given.
void AliasWalk::change_container(Node* node) {
  Object* container = find(node->input(0));
  if (container == nullptr) return make_outputs(node);
  const bool known = container->alias == nullptr && container->maker == nullptr;
  for (size_t i = 1; i < node->inputs().size(); ++i) {
    if (const Object* object = find(node->input(i))) collect(*object, container->shares);
  }
  if (!known || !node->kind().is_aten() ||
      std::string_view(node->kind().toUnqualString()).starts_with("_foreach")) {
    block_all(*container, node, "writes to all tensors of a list", "write to each of them");
  }
  for (JitValue* output : node->outputs()) {
    if (!may_hold_tensors(output->type())) continue;
    if (is_tensor(output)) {
      make_shared(output, container->shares);
    } else {
      bind(output, container);
    }
  }
}

/// unsqueeze_ and the like: the tensor object becomes a view of what it was.
void AliasWalk::change_shape(Node* node, Object& object) {
  Base* base = object.alias->base;
  bind(node->output(), &object);
  if (base->origin->node()->owningBlock() != node->owningBlock()) {
    found_.written.insert(base->origin);
    block(*base, node, "a change of shape in a branch or loop that depends on data",
          "use an op that returns a new tensor");
  }
  if (base->frozen) return;
  Alias* changed = new_alias(base, object.alias, {node, 0}, node->output());
  object.alias = changed;
  found_.written.insert(base->origin);
  if (!applies()) return;
  set(*changed, take_view(NodeMaker(node, node), changed->step, node->input(0)));
  dead_.push_back(node);
}

void AliasWalk::set(Alias& alias, JitValue* value) {
  alias.value = value;
  alias.version = alias.base->version;
  alias.moved = true;
}

/// Makes the next version of the whole that `target` is a part of.
void AliasWalk::store(Alias& target, JitValue* part, Node* node) {
  const NodeMaker make(node, node);
  std::vector<std::pair<Alias*, JitValue*>> renewed = {{&target, part}};
  Alias* at = &target;
  Alias* unordered = nullptr;  // the outermost view that only positions can put back
  for (Alias* alias = &target; alias->parent != nullptr; alias = alias->parent) {
    if (!needs_positions(alias->step)) continue;
    unordered = view_of(*alias->step.view) == View::kElement ? alias->parent : alias;
  }
  if (unordered != nullptr) {
    at = unordered->parent;
    part = put_at_positions(make, newest(*at, node), part, [&](JitValue* places) {
      return take_from(target, *unordered->parent, places, make);
    });
    renewed.emplace_back(at, part);
  }
  for (; at->parent != nullptr; at = at->parent) {
    part = put_back(make, at->step, newest(*at->parent, node), part);
    renewed.emplace_back(at->parent, part);
  }
  ++target.base->version;
  for (const auto& [alias, value] : renewed) set(*alias, value);
}

/// What torch.empty holds is not defined: zeros, which ONNX has.
void AliasWalk::fill_empty(Alias& alias) {
  Node* maker = alias.value->node();
  const std::string_view name = maker->kind().toQualString();
  std::vector<JitValue*> inputs = maker->inputs().vec();
  std::string zeros;
  if (name == "aten::empty" && inputs.size() == 6) {
    inputs.pop_back();  // the memory format
    zeros = "aten::zeros";
  } else if (name == "aten::empty_like") {
    zeros = "aten::zeros_like";
  } else if (name == "aten::new_empty") {
    zeros = "aten::new_zeros";
  } else {
    return;
  }
  set(alias, NodeMaker(maker, maker).op(zeros, inputs));
  dead_.push_back(maker);
}

bool functionalize_writes(const GraphPtr& graph) {
  const WriteFindings found = AliasWalk(*graph, nullptr).run();
  if (!found.possible()) return false;
  AliasWalk(*graph, &found).run();
  return true;
}

void refuse_writes(const GraphPtr& graph) {
  if (!has_mutation(graph->block())) return;
  const WriteFindings found = AliasWalk(*graph, nullptr).run();
  std::vector<UnsupportedOp::Details> details;
  std::unordered_set<const Node*> named;
  for (const auto& [base, write] : found.blocked) {
    if (found.written.count(base) == 0 || !named.insert(write.node).second) continue;
    details.push_back({.op = op_name(*write.node),
                       .reason = write.reason,
                       .hint = write.hint,
                       .where = node_location(*write.node)});
  }
  if (!details.empty()) throw UnsupportedOp(std::move(details));
}

}  // namespace qcdq
