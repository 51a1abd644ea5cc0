// Ops that copy or share by the strides of their input (reshape, contiguous, to), as_strided, out=
// results that are resized, writes that read what they write: one run of the graph on the examples,
// before any write has become functional, decides them as torch does.
#include <ATen/ATen.h>
#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/ir/constants.h>

#include <functional>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "symbolic/lower/alias_watcher.h"
#include "symbolic/lower/aliases.h"
#include "symbolic/lower/passes.h"
#include "symbolic/lower/view_forms.h"
#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::Block;
using torch::jit::Node;
using torch::jit::Stack;
using JitValue = torch::jit::Value;
namespace prim = torch::jit::prim;

namespace {

void for_each_node(Block* block, const std::function<void(Node*)>& visit) {
  for (Node* node : block->nodes()) {
    visit(node);
    for (Block* inner : node->blocks()) for_each_node(inner, visit);
  }
}

/// Places of the inputs with which a result may share memory: those that the schema names, all
/// where it names none.
std::vector<size_t> sharing_inputs(const Node& node) {
  std::vector<size_t> named;
  std::vector<size_t> all;
  const c10::FunctionSchema* schema = node.maybeSchema();
  for (size_t i = 0; i < node.inputs().size(); ++i) {
    all.push_back(i);
    const bool names = schema != nullptr && i < schema->arguments().size() &&
                       schema->arguments()[i].alias_info() != nullptr;
    if (names) named.push_back(i);
  }
  if (view_of(node) != View::kNone) return {0};
  return named.empty() ? all : named;
}

/// Values that may share memory, by their ops' schemas alone: more than do, and fast to tell.
class SharedMemory {
 public:
  explicit SharedMemory(Block* block) { join_block(block); }
  bool same(const JitValue* a, const JitValue* b) { return root(a) == root(b); }
  const JitValue* root(const JitValue* value) {
    const JitValue* at = value;
    for (auto up = up_.find(at); up != up_.end(); up = up_.find(at)) at = up->second;
    for (auto up = up_.find(value); up != up_.end() && up->second != at; up = up_.find(value)) {
      value = up->second;
      up->second = at;
    }
    return at;
  }

 private:
  void join(const JitValue* a, const JitValue* b) {
    if (!may_hold_tensors(a->type()) || !may_hold_tensors(b->type())) return;
    const JitValue* first = root(a);
    const JitValue* second = root(b);
    if (first != second) up_[first] = second;
  }

  void join_block(Block* block) {
    for (Node* node : block->nodes()) {
      for (Block* inner : node->blocks()) {
        join_block(inner);
        for (size_t i = 0; i < node->outputs().size(); ++i) {
          const size_t own = node->kind() == prim::Loop ? 1 : 0;
          join(node->output(i), inner->outputs()[i + own]);
          if (own == 0) continue;
          join(node->output(i), node->input(i + 2));
          join(node->output(i), inner->inputs()[i + 1]);
        }
      }
      if (!node->blocks().empty() || node->kind() == prim::Constant) continue;
      for (size_t i = 0; i < node->outputs().size(); ++i) {
        if (!may_share(*node, i)) continue;
        for (size_t place : sharing_inputs(*node)) join(node->output(i), node->input(place));
      }
      // A list may come to hold what an op is given beside it.
      for (size_t place : written_inputs(*node)) {
        if (is_tensor(node->input(place))) continue;
        for (const JitValue* input : node->inputs()) join(node->input(place), input);
      }
    }
  }

  std::unordered_map<const JitValue*, const JitValue*> up_;
};

/// Nothing but a copy of it is used.
bool is_only_copied(const JitValue* value) {
  return value->uses().size() == 1 && value->uses()[0].user->kind() == torch::jit::aten::clone;
}

class Decider {
 public:
  explicit Decider(Program& program) : program_(program), memory_(program.graph->block()) {}

  bool run() {
    find_questions();
    if (asked_.empty()) return false;
    AliasWatcher watcher(asked_, constants_);
    watch(watcher);
    for (const Node* node : asked_) {
      if (const Seen* seen = watcher.find(node); seen != nullptr && seen->shared && seen->copied) {
        watcher.refuse(*node, "shares memory with its input at times, and copies it at others",
                       "clone() the result");
      }
    }
    watcher.throw_refusals();
    bool changed = false;
    for (Node* node : order_) {
      if (const Seen* seen = watcher.find(node)) changed |= settle(node, *seen);
    }
    return changed;
  }

 private:
  void find_questions() {
    std::unordered_set<const JitValue*> written;
    std::unordered_set<const JitValue*> indexed;
    for_each_node(program_.graph->block(), [&](Node* node) {
      for (size_t place : written_inputs(*node)) written.insert(memory_.root(node->input(place)));
      if (view_of(*node) == View::kIndexed) indexed.insert(memory_.root(node->output()));
    });
    for_each_node(program_.graph->block(), [&](Node* node) {
      if (node->outputs().empty()) return;
      const JitValue* family = memory_.root(node->output(0));
      if (node->kind() == prim::Constant && written.count(family) != 0) constants_.insert(node);
      const bool asks =
          (may_copy(*node) && written.count(family) != 0 && !is_only_copied(node->output())) ||
          node->kind() == torch::jit::aten::as_strided || asks_of_write(node, indexed);
      if (!asks) return;
      asked_.insert(node);
      order_.push_back(node);
    });
  }

  bool asks_of_write(Node* node, const std::unordered_set<const JitValue*>& indexed) {
    for (size_t place : written_inputs(*node)) {
      const JitValue* target = node->input(place);
      if (!is_tensor(target)) continue;
      if (place > 0 || indexed.count(memory_.root(target)) != 0) return true;
      for (size_t i = 0; i < node->inputs().size(); ++i) {
        const JitValue* input = node->input(i);
        if (i != place && may_hold_tensors(input->type()) && memory_.same(input, target)) {
          return true;
        }
      }
    }
    return false;
  }

  void watch(AliasWatcher& watcher) {
    for (size_t i = 0; i < program_.inputs.front().examples.size(); ++i) {
      std::vector<c10::IValue> inputs;
      for (const ProgramInput& input : program_.inputs) {
        const c10::IValue& example = input.examples.at(i);
        inputs.push_back(example.isTensor() ? c10::IValue(example.toTensor().clone()) : example);
      }
      std::optional<RunFailure> failure;
      interpret(*program_.graph, inputs, failure, watcher);
      // Where the second size fails, the recorder says why.
      if (!failure || i > 0) continue;
      watcher.throw_refusals();
      const std::string where = failure->node == nullptr ? "" : node_location(*failure->node);
      throw std::runtime_error(
          (failure->node == nullptr ? std::string("the model") : op_name(*failure->node)) +
          (where.empty() ? "" : " at " + where) +
          " fails on the example inputs: " + failure->message);
    }
  }

  bool settle(Node* node, const Seen& seen) {
    if (!written_inputs(*node).empty()) return seen.resized && replace_resized(node);
    if (node->kind() == torch::jit::aten::as_strided) {
      return seen.identity &&
             replace(node, NodeMaker(node, node).op("aten::alias", {node->input(0)}));
    }
    if (seen.copied) {
      const NodeMaker make(node->next(), node);
      JitValue* copy = make.op("aten::clone", {node->output(), make.constant(c10::IValue())});
      node->output()->replaceAllUsesAfterNodeWith(copy->node(), copy);
      return true;
    }
    JitValue* shared = always_shared(node, seen);
    return shared != nullptr && replace(node, shared);
  }

  static bool replace(Node* node, JitValue* by) {
    node->output()->replaceAllUsesWith(by);
    node->destroy();
    return true;
  }

  /// The op that always gives what this one gave; null where there is none.
  static JitValue* always_shared(Node* node, const Seen& seen) {
    const NodeMaker make(node, node);
    const std::string_view name = node->kind().toUnqualString();
    JitValue* self = node->input(0);
    if (name == "reshape") return make.op("aten::view", {self, node->input(1)});
    if (name == "reshape_as") return make.op("aten::view_as", {self, node->input(1)});
    if (name == "contiguous" || name == "to" || name == "type_as") {
      return make.op("aten::alias", {self});
    }
    if (name == "ravel") {
      return make.op("aten::view", {self, make.constant(std::vector<int64_t>{-1})});
    }
    if (name != "flatten") return nullptr;
    const auto first = torch::jit::toIValue(node->input(1));
    const auto last = torch::jit::toIValue(node->input(2));
    if (!first || !first->isInt() || !last || !last->isInt()) return nullptr;
    const auto dim = [&](int64_t d) { return d < 0 ? d + seen.rank : d; };
    std::vector<JitValue*> sizes;
    for (int64_t d = 0; d < seen.rank; ++d) {
      if (d == dim(first->toInt())) sizes.push_back(make.constant(-1));
      if (d >= dim(first->toInt()) && d <= dim(last->toInt())) continue;
      sizes.push_back(make.op("aten::size", {self, make.constant(d)}, c10::IntType::get()));
    }
    if (seen.rank == 0) sizes.push_back(make.constant(-1));
    return make.op("aten::view", {self, make.list(sizes, c10::IntType::get())});
  }

  /// torch.add(x, y, out=torch.empty(0)): the result takes the place of the tensor that was given.
  bool replace_resized(Node* node) {
    const std::vector<size_t> places = written_inputs(*node);
    JitValue* out = node->input(places.front());
    const std::string_view maker = out->node()->kind().toQualString();
    bool alone = places.size() == 1 && node->outputs().size() == 1 &&
                 places[0] + 1 == node->inputs().size() &&
                 (maker.starts_with("aten::empty") || maker == "aten::zeros") &&
                 out->node()->owningBlock() == node->owningBlock();
    for (const torch::jit::Use& use : out->uses()) {
      alone &= use.user == node ||
               (use.user->owningBlock() == node->owningBlock() && use.user->isAfter(node));
    }
    if (!alone) {
      refuse_node(*node, "gives the tensor of out= another size",
                  "give it one of the result's size, or leave out= out");
    }
    std::vector<JitValue*> inputs = node->inputs().vec();
    inputs.pop_back();
    const NodeMaker make(node, node);
    JitValue* result = make.op(node->kind().toQualString(), inputs);
    JitValue* cast = make.op("aten::type_as", {result, out});
    out->replaceAllUsesAfterNodeWith(node, cast);
    return replace(node, cast);
  }

  Program& program_;
  SharedMemory memory_;
  std::vector<Node*> order_;
  std::unordered_set<const Node*> asked_;
  std::unordered_set<const Node*> constants_;
};

}  // namespace

bool decide_aliases(Program& program) {
  if (program.inputs.empty()) return false;
  return Decider(program).run();
}

}  // namespace qcdq
