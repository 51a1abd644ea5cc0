// What travels from a source (TorchScript, traced C++ module, .pt2) to convert: a
// torch::jit::Graph, its inputs and the names of its weights. No third representation stands
// between this and OnnxGraph.
#pragma once

#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "qcdq/symbolic.h"

namespace qcdq {

struct ProgramInput {
  std::string name;  // the ONNX input's name
  std::vector<c10::IValue>
      examples;  // one per recorded run: [0] as given; [1], with dynamic axes, at a second size
  std::vector<std::string> symbols;  // per dimension: "" or the dynamic dimension's name
};

struct Program {
  /// After lower(): one block of functional ops, no self argument, no calls, attributes as
  /// constants. graph->inputs() match `inputs`.
  std::shared_ptr<torch::jit::Graph> graph;
  std::vector<ProgramInput> inputs;
  std::vector<std::string>
      output_names;  // after lower(): one per graph output (tuples are flattened)
  /// Path in the module of each parameter and buffer ("layer1.0.conv1.weight"), by its data
  /// pointer.
  std::unordered_map<const void*, std::string> parameter_paths;
  /// The module's own forward on one value per input, flattened to tensors: what the graph must
  /// reproduce.
  std::function<std::vector<at::Tensor>(const std::vector<c10::IValue>&)> reference;
  /// The graph is that forward's own code (TorchScript), not a trace or a translation of it:
  /// record() runs the graph only.
  bool graph_is_reference = false;
  /// Keeps the weights alive.
  std::shared_ptr<const void> owner;
  /// Types of every Tensor value in the graph, by record(): element type, and dims with -1 where
  /// the runs differ.
  std::unordered_map<const torch::jit::Value*, TensorType> types;
  std::vector<std::string> notes;  // lines for the report
  /// The source computes on integers (quantized::*), and lower_quantized() has made a graph of it
  /// that computes on floats of the same grids: a code may be one step apart.
  bool integer_kernels = false;
};

}  // namespace qcdq
