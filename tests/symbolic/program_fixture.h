// What the tests of the exporter's front (source, lower, record) share: programs from IR text or
// scripts, and counts of the ops in a graph.
#pragma once

#include <torch/csrc/jit/ir/irparser.h>
#include <torch/script.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "symbolic/program.h"
#include "symbolic/run_node.h"

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
  torch::jit::GraphFunction function("run", program.graph->copy(), nullptr);
  torch::jit::Stack stack;
  for (const ProgramInput& input : program.inputs) stack.push_back(input.examples.at(0));
  function.run(stack);
  std::vector<at::Tensor> outputs;
  for (const c10::IValue& value : stack) {
    if (value.isTuple()) {
      for (const c10::IValue& element : value.toTupleRef().elements()) {
        outputs.push_back(element.toTensor());
      }
    } else {
      outputs.push_back(value.toTensor());
    }
  }
  return outputs;
}

}  // namespace qcdq
