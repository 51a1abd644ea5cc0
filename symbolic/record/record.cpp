// See record.h. program/interpreter.cpp runs, shape_folding.cpp folds, follow_axes.cpp proves.
#include "symbolic/record/record.h"

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "symbolic/program/tensors.h"
#include "symbolic/record/shape_folding.h"

namespace qcdq {

using torch::jit::Block;
using torch::jit::Node;
using JitValue = torch::jit::Value;

namespace {

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

}  // namespace

std::vector<c10::IValue> Recorder::examples(size_t index) const {
  std::vector<c10::IValue> values;
  for (const ProgramInput& input : program_.inputs) values.push_back(input.examples.at(index));
  return values;
}

void Recorder::run() {
  run_pass(dump_, phase("record "), "types from the examples", [&] {
    run_examples();
    if (dump_ != nullptr) dump_->keep_types();
  });
}

void Recorder::run_examples() {
  runs_.clear();
  std::optional<RunFailure> failure;
  runs_.push_back(interpret(*program_.graph, examples(0), failure));
  if (failure) {
    throw std::runtime_error(
        (failure->node ? describe_node(*failure->node) : std::string("the model")) +
        " fails on the example inputs: " + failure->message);
  }
  runs_[0].outputs.clear();
  if (!symbols_.empty()) {
    runs_.push_back(interpret(*program_.graph, examples(1), failure));
    if (failure) AxisProof(program_, symbols_, runs_).refuse_second_size(*failure);
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
  fresh_ = true;
}

std::vector<std::string> Recorder::fold() {
  std::vector<std::string> folded;
  const auto pass = [&](const char* name, auto changes) {
    if (run_pass(dump_, phase("fold "), name, changes)) folded.emplace_back(name);
  };
  pass("shape queries", [&] { return fold_shape_queries(*program_.graph, program_.types); });
  if (!fresh_) return folded;
  pass("branches and loops", [&] {
    const int fixed = fix_control_flow(*program_.graph, runs_, program_.types);
    fixed_ += fixed;
    return fixed > 0;
  });
  pass("strided views", [&] { return drop_strided_identities(*program_.graph, runs_); });
  return folded;
}

void Recorder::refresh() {
  ++round_;
  fresh_ = !assign_types();
  if (fresh_) return run();
  run_pass(dump_, phase("record "), "types of the last run", [&] {
    if (dump_ != nullptr) dump_->keep_types();
  });
}

/// Fills program.types by the values' ids (an address may be used again, an id is not). False
/// where a value is new since the last run.
bool Recorder::assign_types() {
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
    const bool coordinates = value->node()->kind() == torch::jit::aten::nonzero && dims.size() == 2;
    std::fill(dims.begin(), dims.end() - (coordinates ? 1 : 0), -1);
    type->second.symbols.clear();
  }
  return std::all_of(missing_.begin(), missing_.end(),
                     [&](size_t id) { return unreached_.count(id) != 0; });
}

void Recorder::assign_block(Block* block) {
  for (Node* node : block->nodes()) {
    for (Block* inner : node->blocks()) {
      for (const JitValue* input : inner->inputs()) assign(input);
      assign_block(inner);
    }
    for (const JitValue* output : node->outputs()) assign(output);
  }
}

void Recorder::assign(const JitValue* value) {
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

void Recorder::check_outputs() const {
  const auto outputs = program_.graph->outputs();
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i]->type()->kind() == c10::TypeKind::TensorType) continue;
    throw std::runtime_error(
        "output " + std::to_string(i) + " of the model is a " + outputs[i]->type()->repr_str() +
        ", expected a Tensor, or a tuple, list or dict of known length of them");
  }
  if (outputs.empty()) throw std::runtime_error("the model has no outputs");
}

void Recorder::finish() {
  run_pass(dump_, phase("record "), "check outputs and axes", [&] {
    check_outputs();
    if (symbols_.empty()) return;
    if (fixed_ > 0) {
      program_.notes.push_back(std::to_string(fixed_) +
                               " branches or loops that depend on shapes are fixed as the sizes of "
                               "the example and " +
                               sizes_text(symbols_) + " decide them");
    }
    AxisProof(program_, symbols_, runs_).prove(examples(1));
  });
}

}  // namespace qcdq
