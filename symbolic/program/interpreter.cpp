// One run of a graph: values live from their definition to their last use, so that the peak of
// memory is that of a forward pass. See interpreter.h.
#include "symbolic/program/interpreter.h"

#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/ir/constants.h>

#include <exception>
#include <stdexcept>
#include <utility>

#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Stack;
using JitValue = torch::jit::Value;
namespace prim = torch::jit::prim;

Observed Observed::of(const at::Tensor& tensor) {
  return {tensor.scalar_type(), true, tensor.sizes().vec()};
}

void Observed::merge(const Observed& other) {
  if (dtype != other.dtype) dtype = at::ScalarType::Undefined;
  if (!ranked || !other.ranked || dims.size() != other.dims.size()) {
    ranked = false;
    dims.clear();
    return;
  }
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] != other.dims[i]) dims[i] = -1;
  }
}

namespace {

/// Both show the same elements of the storage in the same order. The stride of a dimension of one
/// element says nothing.
bool same_view(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.storage_offset() != b.storage_offset()) return false;
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) > 1 && a.stride(d) != b.stride(d)) return false;
  }
  return true;
}

class Interpreter {
 public:
  Interpreter(Run& run, NodeWatcher* watcher) : run_(run), watcher_(watcher) {}

  std::optional<RunFailure> operator()(Graph& graph, const std::vector<c10::IValue>& inputs) {
    plan_releases(graph.block());
    try {
      for (size_t i = 0; i < inputs.size(); ++i) define(graph.inputs()[i], inputs[i]);
      execute(graph.block());
      for (JitValue* output : graph.outputs()) run_.outputs.push_back(lookup(output));
      return std::nullopt;
    } catch (const std::exception& error) {
      return RunFailure{current_, first_line(error)};
    }
  }

 private:
  static void collect_uses(Node* node, std::vector<JitValue*>& uses) {
    for (JitValue* input : node->inputs()) uses.push_back(input);
    for (Block* block : node->blocks()) {
      for (Node* inner : block->nodes()) collect_uses(inner, uses);
      for (JitValue* output : block->outputs()) uses.push_back(output);
    }
  }

  /// A value is released after the last node of its own block that uses it, inner blocks included.
  void plan_releases(Block* block) {
    std::unordered_map<JitValue*, Node*> last;
    for (JitValue* input : block->inputs()) last[input] = nullptr;
    for (Node* node : block->nodes()) {
      std::vector<JitValue*> uses;
      collect_uses(node, uses);
      for (JitValue* use : uses) {
        if (const auto entry = last.find(use); entry != last.end()) entry->second = node;
      }
      for (JitValue* output : node->outputs()) last[output] = node;
      for (Block* inner : node->blocks()) plan_releases(inner);
    }
    for (JitValue* output : block->outputs()) last.erase(output);
    for (const auto& [value, node] : last) {
      if (node != nullptr) releases_[node].push_back(value);
    }
  }

  void define(const JitValue* value, c10::IValue result) {
    if (result.isTensor() && result.toTensor().defined()) {
      const Observed observed = Observed::of(result.toTensor());
      const auto [entry, added] = run_.types.emplace(value->unique(), observed);
      if (!added) entry->second.merge(observed);
    }
    values_[value] = std::move(result);
  }

  const c10::IValue& lookup(const JitValue* value) const {
    const auto found = values_.find(value);
    if (found == values_.end()) {
      throw std::runtime_error("value %" + value->debugName() + " is used before it is computed");
    }
    return found->second;
  }

  void observe_control(const Node* node, int64_t what) {
    const auto [entry, added] = run_.control.emplace(node, what);
    if (added) return;
    if (node->kind() == prim::If) {
      entry->second |= what;
    } else if (entry->second != what) {
      entry->second = -1;
    }
  }

  void execute(Block* block) {
    for (Node* node : block->nodes()) {
      current_ = node;
      if (node->kind() == prim::If) {
        run_if(node);
      } else if (node->kind() == prim::Loop) {
        run_loop(node);
      } else {
        run_plain(node);
      }
      if (const auto entry = releases_.find(node); entry != releases_.end()) {
        for (const JitValue* value : entry->second) values_.erase(value);
      }
    }
  }

  void run_plain(Node* node) {
    Stack stack;
    if (node->kind() != prim::Constant) {
      stack.reserve(node->inputs().size());
      for (const JitValue* input : node->inputs()) stack.push_back(lookup(input));
    }
    if (watcher_ != nullptr) {
      const Stack inputs = stack;
      watcher_->before(*node, inputs);
      stack = run_node(*node, std::move(stack));
      watcher_->after(*node, inputs, stack);
    } else {
      stack = run_node(*node, std::move(stack));
    }
    if (stack.size() != node->outputs().size()) {
      throw std::runtime_error("gave " + std::to_string(stack.size()) + " results, expected " +
                               std::to_string(node->outputs().size()));
    }
    if (node->kind() == torch::jit::aten::as_strided) {
      const bool same = same_view(lookup(node->input(0)).toTensor(), stack[0].toTensor());
      run_.strided_identity.emplace(node, true).first->second &= same;
    }
    for (size_t i = 0; i < stack.size(); ++i) define(node->output(i), std::move(stack[i]));
  }

  void run_if(Node* node) {
    const bool condition = lookup(node->input(0)).toBool();
    observe_control(node, condition ? 1 : 2);
    Block* branch = node->blocks()[condition ? 0 : 1];
    execute(branch);
    for (size_t i = 0; i < node->outputs().size(); ++i) {
      define(node->output(i), lookup(branch->outputs()[i]));
    }
  }

  void run_loop(Node* node) {
    Block* body = node->blocks()[0];
    const int64_t most = lookup(node->input(0)).toInt();
    bool condition = lookup(node->input(1)).toBool();
    std::vector<c10::IValue> carried;
    for (size_t i = 2; i < node->inputs().size(); ++i) carried.push_back(lookup(node->input(i)));
    int64_t trips = 0;
    for (; trips < most && condition; ++trips) {
      define(body->inputs()[0], trips);
      for (size_t i = 0; i < carried.size(); ++i) define(body->inputs()[i + 1], carried[i]);
      execute(body);
      condition = lookup(body->outputs()[0]).toBool();
      for (size_t i = 0; i < carried.size(); ++i) carried[i] = lookup(body->outputs()[i + 1]);
    }
    observe_control(node, trips);
    for (size_t i = 0; i < carried.size(); ++i) define(node->output(i), std::move(carried[i]));
  }

  Run& run_;
  NodeWatcher* watcher_;
  const Node* current_ = nullptr;
  std::unordered_map<const JitValue*, c10::IValue> values_;
  std::unordered_map<const Node*, std::vector<JitValue*>> releases_;
};

Run interpret_watched(Graph& graph, const std::vector<c10::IValue>& inputs,
                      std::optional<RunFailure>& failure, NodeWatcher* watcher) {
  const c10::InferenceMode no_autograd;
  Run run;
  failure = Interpreter(run, watcher)(graph, inputs);
  return run;
}

}  // namespace

Run interpret(Graph& graph, const std::vector<c10::IValue>& inputs,
              std::optional<RunFailure>& failure) {
  return interpret_watched(graph, inputs, failure, nullptr);
}

Run interpret(Graph& graph, const std::vector<c10::IValue>& inputs,
              std::optional<RunFailure>& failure, NodeWatcher& watcher) {
  return interpret_watched(graph, inputs, failure, &watcher);
}

}  // namespace qcdq
