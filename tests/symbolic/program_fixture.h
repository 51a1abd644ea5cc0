// What the tests of the exporter's front (source, lower, record) share: programs from IR text or
// scripts, and counts of the ops in a graph.
#pragma once

#include <torch/csrc/jit/ir/irparser.h>
#include <torch/script.h>

#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "symbolic/program/interpreter.h"
#include "symbolic/program/program.h"
#include "symbolic/program/run_node.h"

namespace qcdq {

/// A program of IR text; its reference is not set.
inline Program program_of_ir(const std::string& text, const std::vector<at::Tensor>& examples) {
  Program program;
  program.graph = std::make_shared<torch::jit::Graph>();
  torch::jit::parseIR(text, program.graph.get());
  for (size_t i = 0; i < examples.size(); ++i) {
    program.inputs.push_back({"x" + std::to_string(i), {examples[i]}, {}});
  }
  return program;
}

/// A module with a parameter w, a buffer b and the methods of `script`.
inline torch::jit::Module module_of(const std::string& script,
                                    const at::Tensor& w = at::ones({2, 2}),
                                    const at::Tensor& b = at::ones({2, 2})) {
  torch::jit::Module module("Scripted");
  module.register_attribute("training", c10::BoolType::get(), true);
  module.register_parameter("w", w, /*is_buffer=*/false);
  module.register_buffer("b", b);
  module.define(script);
  return module;
}

inline void count_ops(torch::jit::Block* block, std::map<std::string, int>& counts) {
  for (torch::jit::Node* node : block->nodes()) {
    if (node->kind() != torch::jit::prim::Constant &&
        node->kind() != torch::jit::prim::ListConstruct) {
      ++counts[op_name(*node)];
    }
    for (torch::jit::Block* inner : node->blocks()) count_ops(inner, counts);
  }
}

/// Nodes by op, without constants and lists.
inline std::map<std::string, int> ops(const Program& program) {
  std::map<std::string, int> counts;
  count_ops(program.graph->block(), counts);
  return counts;
}

using Ops = std::map<std::string, int>;

/// The text of what `call` throws; "" where it throws nothing.
template <typename Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return first_line(error);
  }
  return "";
}

/// Runs the program's graph on its first examples.
inline std::vector<at::Tensor> run_graph(const Program& program) {
  std::vector<c10::IValue> examples;
  for (const ProgramInput& input : program.inputs) examples.push_back(input.examples.at(0));
  std::optional<RunFailure> failure;
  const Run run = interpret(*program.graph, examples, failure);
  if (failure) throw std::runtime_error(failure->message);
  std::vector<at::Tensor> outputs;
  for (const c10::IValue& value : run.outputs) outputs.push_back(value.toTensor());
  return outputs;
}

}  // namespace qcdq
