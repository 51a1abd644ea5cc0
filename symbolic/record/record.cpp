// The recorder: runs the lowered graph once per example, gives each tensor value its type, folds
// what the shapes decide, and checks that the graph follows its dynamic axes. interpreter.cpp runs,
// shape_folding.cpp folds, lower.cpp lowers again.
#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <stdexcept>
#include <unordered_set>
#include <utility>

#include "symbolic/convert/node_args.h"
#include "symbolic/program/interpreter.h"
#include "symbolic/program/program.h"
#include "symbolic/program/run_node.h"
#include "symbolic/record/shape_folding.h"

namespace qcdq {

using torch::jit::Block;
using torch::jit::Node;
using JitValue = torch::jit::Value;

namespace {

constexpr int kMostRounds = 64;
constexpr double kTolerance = 1e-4;  // relative to the largest element
// |a - b| / |b| as vectors, of a model that computes on integers: codes may be a step apart. A size
// that a trace has baked shifts or repeats whole rows.
constexpr double kIntegerTolerance = 0.1;

std::string describe(const Node& node) {
  const std::string where = node_location(node);
  return op_name(node) + (where.empty() ? "" : " at " + where);
}

std::string shape_of(const std::vector<int64_t>& dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
  return text + "]";
}

/// Sizes of each symbol in the two runs.
struct Symbol {
  std::string name;
  int64_t first;
  int64_t second;
};

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

TensorType to_type(const Observed& first, const Observed* second,
                   const std::vector<Symbol>& symbols) {
  TensorType type;
  Observed merged = first;
  if (second != nullptr) merged.merge(*second);
  type.dtype = dtype_of(merged.dtype);
  type.ranked = merged.ranked;
  type.dims = merged.dims;
  if (second == nullptr || !merged.ranked) return type;
  for (size_t i = 0; i < merged.dims.size(); ++i) {
    if (merged.dims[i] >= 0) continue;
    if (type.symbols.empty()) type.symbols.resize(merged.dims.size());
    for (const Symbol& symbol : symbols) {
      if (first.dims[i] == symbol.first && second->dims[i] == symbol.second) {
        type.symbols[i] = symbol.name;
      }
    }
  }
  return type;
}

class Recorder {
 public:
  explicit Recorder(Program& program) : program_(program), symbols_(symbols_of(program)) {}

  void record() {
    bool fresh = true;  // the runs are of the graph as it is now
    run();
    for (int round = 0; round < kMostRounds; ++round) {
      bool changed = fold_shape_queries(*program_.graph, program_.types);
      if (fresh) {
        const int fixed = fix_control_flow(*program_.graph, runs_, program_.types);
        changed |= fixed > 0;
        changed |= drop_strided_identities(*program_.graph, runs_);
        fixed_ += fixed;
      }
      if (!changed) break;
      lower(program_);
      fresh = !assign_types();
      if (fresh) run();
    }
    check_outputs();
    if (symbols_.empty()) return;
    if (fixed_ > 0) {
      program_.notes.push_back(std::to_string(fixed_) +
                               " branches or loops that depend on shapes are fixed as the sizes " +
                               "of the example and " + sizes_text(symbols_) + " decide them");
    }
    if (!program_.graph_is_reference) {
      compare_with_reference();
    } else if (const Node* baked = baked_node(program_.graph->block())) {
      note_baked(*baked);
    }
  }

 private:
  std::vector<c10::IValue> examples(size_t index) const {
    std::vector<c10::IValue> values;
    for (const ProgramInput& input : program_.inputs) values.push_back(input.examples.at(index));
    return values;
  }

  void run() {
    runs_.clear();
    std::optional<RunFailure> failure;
    runs_.push_back(interpret(*program_.graph, examples(0), failure));
    if (failure) {
      throw std::runtime_error(
          (failure->node ? describe(*failure->node) : std::string("the model")) +
          " fails on the example inputs: " + failure->message);
    }
    runs_[0].outputs.clear();
    if (!symbols_.empty()) {
      runs_.push_back(interpret(*program_.graph, examples(1), failure));
      if (failure) refuse_second_size(*failure);
    }
    known_.clear();
    for (const auto& [id, observed] : runs_[0].types) {
      const Observed* second = nullptr;
      if (runs_.size() > 1) {
        const auto entry = runs_[1].types.find(id);
        if (entry != runs_[1].types.end()) second = &entry->second;
      }
      known_[id] = to_type(observed, second, symbols_);
    }
    if (runs_.size() > 1) {
      for (const auto& [id, observed] : runs_[1].types) {
        known_.emplace(id, to_type(observed, nullptr, symbols_));
      }
    }
    unreached_.clear();
    assign_types();
    unreached_.swap(missing_);
  }

  /// Fills program.types by the values' ids (an address may be used again, an id is not). False
  /// where a value is new since the last run.
  bool assign_types() {
    program_.types.clear();
    missing_.clear();
    for (const JitValue* input : program_.graph->inputs()) assign(input);
    assign_block(program_.graph->block());
    // What one run saw of these sizes says nothing about the next.
    for (const JitValue* value : shaped_by_data(*program_.graph, program_.types)) {
      const auto type = program_.types.find(value);
      if (type == program_.types.end()) continue;
      std::vector<int64_t>& dims = type->second.dims;
      // nonzero gives [matches, rank]: only the first depends on data.
      const bool coordinates =
          value->node()->kind() == torch::jit::aten::nonzero && dims.size() == 2;
      std::fill(dims.begin(), dims.end() - (coordinates ? 1 : 0), -1);
      type->second.symbols.clear();
    }
    return std::all_of(missing_.begin(), missing_.end(),
                       [&](size_t id) { return unreached_.count(id) != 0; });
  }

  void assign_block(Block* block) {
    for (Node* node : block->nodes()) {
      for (Block* inner : node->blocks()) {
        for (const JitValue* input : inner->inputs()) assign(input);
        assign_block(inner);
      }
      for (const JitValue* output : node->outputs()) assign(output);
    }
  }

  void assign(const JitValue* value) {
    if (const auto known = known_.find(value->unique()); known != known_.end()) {
      program_.types[value] = known->second;
      return;
    }
    if (value->type()->kind() != c10::TypeKind::TensorType) return;
    const auto constant = torch::jit::toIValue(value);
    if (constant && constant->isTensor() && constant->toTensor().defined()) {
      program_.types[value] = to_type(Observed::of(constant->toTensor()), nullptr, symbols_);
      return;
    }
    missing_.insert(value->unique());
  }

  /// The first reshape that holds a symbol's example size as a constant, and whose output no longer
  /// has that symbol: where a trace has baked the size.
  const Node* baked_node(Block* block) const {
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

  const Observed* seen(size_t run, const JitValue* value) const {
    const auto found = runs_.at(run).types.find(value->unique());
    return found == runs_[run].types.end() ? nullptr : &found->second;
  }

  /// A dimension of the value has the symbol's size in both runs.
  bool has_symbol(const JitValue* value, const Symbol& symbol) const {
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

  [[noreturn]] void refuse_baked(const Node& node, const std::string& reason) const {
    throw UnsupportedOp(
        {.op = op_name(node),
         .argument = "",
         .value = "",
         .opset = 0,
         .reason = reason,
         .hint = "a trace bakes the sizes of its example: script the model, write x.flatten(1) "
                 "for x.view(batch, -1), or export without this dynamic axis",
         .where = node_location(node)});
  }

  [[noreturn]] void refuse_second_size(const RunFailure& failure) const {
    if (const Node* node = baked_node(program_.graph->block())) {
      refuse_baked(*node, "its result has the shape " + shape_of(seen(1, node->output())->dims) +
                              " at " + sizes_text(symbols_) + ": it keeps the example's size");
    }
    if (failure.node == nullptr) throw std::runtime_error(failure.message);
    refuse_baked(*failure.node, "fails at " + sizes_text(symbols_) + ": " + failure.message);
  }

  void note_baked(const Node& node) {
    program_.notes.push_back(describe(node) + ": its result has the shape " +
                             shape_of(seen(1, node.output())->dims) + " at " +
                             sizes_text(symbols_) + ", as in the model: is a size baked in?");
  }

  void check_outputs() const {
    const auto outputs = program_.graph->outputs();
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i]->type()->kind() == c10::TypeKind::TensorType) continue;
      throw std::runtime_error(
          "output " + std::to_string(i) + " of the model is a " + outputs[i]->type()->repr_str() +
          ", expected a Tensor, or a tuple, list or dict of known length of them");
    }
    if (outputs.empty()) throw std::runtime_error("the model has no outputs");
  }

  /// Proves a trace (which bakes sizes) or a translation (.pt2) at the second size. A TorchScript
  /// graph needs no third forward: its reference is the same code before lower(), with the same
  /// sizes baked in. That every node follows its axes is what the two runs of the graph show; that
  /// lower() kept the meaning does not depend on the size, and verify compares outputs at both.
  void compare_with_reference() {
    std::vector<at::Tensor> expected;
    try {
      expected = program_.reference(examples(1));
    } catch (const std::exception& error) {
      throw std::runtime_error("the model itself fails at " + sizes_text(symbols_) + ": " +
                               first_line(error));
    }
    const Node* baked = baked_node(program_.graph->block());
    const std::vector<c10::IValue>& outputs = second_outputs();
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

  /// Outputs at the second size. Flattened here where the last run was of a graph with tuples.
  const std::vector<c10::IValue>& second_outputs() {
    std::vector<c10::IValue> tensors;
    const auto add = [&](const auto& self, const c10::IValue& value) -> void {
      if (value.isTuple()) {
        for (const c10::IValue& element : value.toTupleRef().elements()) self(self, element);
      } else if (value.isList()) {
        for (const c10::IValue& element : value.toListRef()) self(self, element);
      } else if (value.isGenericDict()) {
        for (const auto& entry : value.toGenericDict()) self(self, entry.value());
      } else if (!value.isNone()) {
        tensors.push_back(value);
      }
    };
    for (const c10::IValue& output : runs_.at(1).outputs) add(add, output);
    return runs_[1].outputs = std::move(tensors);
  }

  std::string compare(const std::string& name, const at::Tensor& ours,
                      const at::Tensor& expected) const {
    const std::string start = "output '" + name + "' ";
    if (ours.sizes() != expected.sizes()) {
      return start + "has the shape " + shape_of(ours.sizes().vec()) + ", the model gives " +
             shape_of(expected.sizes().vec());
    }
    if (ours.scalar_type() != expected.scalar_type()) {
      return start + "is " + c10::toString(ours.scalar_type()) + ", the model gives " +
             c10::toString(expected.scalar_type());
    }
    if (ours.numel() == 0) return "";
    const at::Tensor a = ours.to(at::kDouble);
    const at::Tensor b = expected.to(at::kDouble);
    const double largest = at::nan_to_num(b, 0, 0, 0).abs().max().item<double>();
    if (at::allclose(a, b, kTolerance, kTolerance * largest, /*equal_nan=*/true)) return "";
    if (program_.integer_kernels &&
        (a - b).norm().item<double>() <= kIntegerTolerance * b.norm().item<double>()) {
      return "";
    }
    return start + "differs from the model's by up to " +
           std::to_string((a - b).abs().max().item<double>());
  }

  Program& program_;
  std::vector<Symbol> symbols_;
  std::vector<Run> runs_;
  int fixed_ = 0;                                 // branches and loops
  std::unordered_map<size_t, TensorType> known_;  // by Value::unique()
  std::unordered_set<size_t> missing_;            // tensor values without a type
  std::unordered_set<size_t> unreached_;          // those in branches that no run took
};

}  // namespace

void record(Program& program) { Recorder(program).record(); }

}  // namespace qcdq
