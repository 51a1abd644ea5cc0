// See follow_axes.h.
#include "symbolic/record/follow_axes.h"

#include <algorithm>
#include <stdexcept>

#include "symbolic/graph/message_text.h"
#include "symbolic/program/compare_tensors.h"
#include "symbolic/program/run_node.h"
#include "symbolic/program/values.h"

namespace qcdq {

using torch::jit::Block;
using torch::jit::Node;
using JitValue = torch::jit::Value;

namespace {

constexpr double kTolerance = 1e-4;  // of max_relative
// Of rms_relative, for a model that computes on integers: codes may be a step apart. A size that a
// trace has baked shifts or repeats whole rows.
constexpr double kIntegerTolerance = 0.1;

}  // namespace

std::string describe_node(const Node& node) {
  const std::string where = node_location(node);
  return op_name(node) + (where.empty() ? "" : " at " + where);
}

std::vector<Symbol> symbols_of(const Program& program) {
  std::vector<Symbol> symbols;
  for (const ProgramInput& input : program.inputs) {
    for (size_t axis = 0; axis < input.symbols.size(); ++axis) {
      const std::string& name = input.symbols[axis];
      const bool known = std::any_of(symbols.begin(), symbols.end(),
                                     [&](const Symbol& one) { return one.name == name; });
      if (name.empty() || known) continue;
      const auto dim = static_cast<int64_t>(axis);
      symbols.push_back({name, input.examples.at(0).toTensor().size(dim),
                         input.examples.at(1).toTensor().size(dim)});
    }
  }
  return symbols;
}

std::string sizes_text(const std::vector<Symbol>& symbols) {
  std::string text;
  for (const Symbol& symbol : symbols) {
    text += (text.empty() ? "" : ", ") + symbol.name + "=" + std::to_string(symbol.second);
  }
  return text;
}

/// The first reshape that holds a symbol's example size as a constant, and whose output no longer
/// has that symbol: where a trace has baked the size.
const Node* AxisProof::baked_node(Block* block) const {
  for (Node* node : block->nodes()) {
    for (Block* inner : node->blocks()) {
      if (const Node* found = baked_node(inner)) return found;
    }
    const std::string op = node->kind().toUnqualString();
    if (op != "view" && op != "reshape" && op != "expand" && op != "_unsafe_view") continue;
    const auto sizes = constant_value(node->input(1));
    if (!sizes || !sizes->isIntList()) continue;
    const std::vector<int64_t> constants = sizes->toIntVector();
    for (const Symbol& symbol : symbols_) {
      if (std::find(constants.begin(), constants.end(), symbol.first) != constants.end() &&
          has_symbol(node->input(0), symbol) && seen(1, node->output()) &&
          !has_symbol(node->output(), symbol)) {
        return node;
      }
    }
  }
  return nullptr;
}

const Observed* AxisProof::seen(size_t run, const JitValue* value) const {
  const auto found = runs_.at(run).types.find(value->unique());
  return found == runs_[run].types.end() ? nullptr : &found->second;
}

/// A dimension of the value has the symbol's size in both runs.
bool AxisProof::has_symbol(const JitValue* value, const Symbol& symbol) const {
  const Observed* first = seen(0, value);
  const Observed* second = seen(1, value);
  if (first == nullptr || second == nullptr || first->dims.size() != second->dims.size()) {
    return false;
  }
  for (size_t i = 0; i < first->dims.size(); ++i) {
    if (first->dims[i] == symbol.first && second->dims[i] == symbol.second) return true;
  }
  return false;
}

void AxisProof::refuse_baked(const Node& node, const std::string& reason) const {
  refuse_node(node, reason,
              "a trace bakes the sizes of its example: script the model, write x.flatten(1) "
              "for x.view(batch, -1), or export without this dynamic axis");
}

void AxisProof::refuse_second_size(const RunFailure& failure) const {
  if (const Node* node = baked_node(program_.graph->block())) {
    refuse_baked(*node, "its result has the shape " + list_text(seen(1, node->output())->dims) +
                            " at " + sizes_text(symbols_) + ": it keeps the example's size");
  }
  if (failure.node == nullptr) throw std::runtime_error(failure.message);
  refuse_baked(*failure.node, "fails at " + sizes_text(symbols_) + ": " + failure.message);
}

void AxisProof::note_baked(const Node& node) const {
  program_.notes.push_back(describe_node(node) + ": its result has the shape " +
                           list_text(seen(1, node.output())->dims) + " at " + sizes_text(symbols_) +
                           ", as in the model: is a size baked in?");
}

void AxisProof::prove(const std::vector<c10::IValue>& second_examples) const {
  if (!program_.graph_is_reference) {
    compare_with_reference(second_examples);
  } else if (const Node* baked = baked_node(program_.graph->block())) {
    note_baked(*baked);
  }
}

/// Proves a trace (which bakes sizes) or a translation (.pt2) at the second size. A TorchScript
/// graph needs no third forward: its reference is the same code before lower(), with the same
/// sizes baked in. That every node follows its axes is what the two runs of the graph show; that
/// lower() kept the meaning does not depend on the size, and verify compares outputs at both.
void AxisProof::compare_with_reference(const std::vector<c10::IValue>& second_examples) const {
  std::vector<at::Tensor> expected;
  try {
    expected = program_.reference(second_examples);
  } catch (const std::exception& error) {
    throw std::runtime_error("the model itself fails at " + sizes_text(symbols_) + ": " +
                             first_line(error));
  }
  const Node* baked = baked_node(program_.graph->block());
  // Flattened here where the last run was of a graph with tuples.
  std::vector<c10::IValue> outputs;
  for (const c10::IValue& output : runs_.at(1).outputs) {
    for_each_leaf(output, [&](const c10::IValue& leaf) {
      if (!leaf.isNone()) outputs.push_back(leaf);
    });
  }
  std::string difference;
  if (outputs.size() != expected.size()) {
    difference = "the graph has " + std::to_string(outputs.size()) + " outputs, the model " +
                 std::to_string(expected.size());
  }
  for (size_t i = 0; i < outputs.size() && difference.empty(); ++i) {
    difference = compare(program_.output_names.at(i), outputs[i].toTensor(), expected[i]);
  }
  if (difference.empty()) {
    if (baked != nullptr) note_baked(*baked);
    return;
  }
  const std::string reason = difference + " at " + sizes_text(symbols_);
  if (baked != nullptr) refuse_baked(*baked, reason);
  throw std::runtime_error("the exported graph does not follow its dynamic axes: " + reason);
}

std::string AxisProof::compare(const std::string& name, const at::Tensor& ours,
                               const at::Tensor& expected) const {
  const std::string start = "output '" + name + "' ";
  if (ours.sizes() != expected.sizes()) {
    return start + "has the shape " + list_text(ours.sizes().vec()) + ", the model gives " +
           list_text(expected.sizes().vec());
  }
  if (ours.scalar_type() != expected.scalar_type()) {
    return start + "is " + c10::toString(ours.scalar_type()) + ", the model gives " +
           c10::toString(expected.scalar_type());
  }
  const TensorDifference difference = compare_tensors(expected, ours);
  if (difference.max_relative <= kTolerance) return "";
  if (program_.integer_kernels && difference.rms_relative <= kIntegerTolerance) return "";
  return start + "differs from the model's by up to " + std::to_string(difference.max_abs);
}

}  // namespace qcdq
