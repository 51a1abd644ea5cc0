// What travels from a source (TorchScript, traced C++ module, .pt2) to convert: a
// torch::jit::Graph, its inputs and the names of its weights.
#pragma once

#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "qcdq/export.h"
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
  /// The source computes on integers (quantized::*), the graph on floats of the same grids: codes
  /// may differ by a step, by lower_quantized().
  bool integer_kernels = false;
};

/// source/load_torchscript.cpp: the method of a loaded module with example inputs (defaults filled
/// in as constants). Applies options.input_names/output_names/dynamic_axes (a second size per
/// dynamic axis: a different size, the same one for the same symbol).
Program program_from_torchscript(const torch::jit::Module& module,
                                 const std::vector<c10::IValue>& inputs,
                                 const ExportOptions& options);
/// source/trace_module.cpp: traces a C++ module's forward.
Program program_from_module(const std::shared_ptr<torch::nn::Module>& module,
                            const BoxedForward& forward, const std::vector<c10::IValue>& inputs,
                            const ExportOptions& options);

/// source/load_pt2.cpp: a program of torch.export; `inputs` empty = its own examples. Its symbols
/// are the dynamic axes; options.dynamic_axes gives them names.
Program program_from_pt2(const ExportedProgram& exported, const std::vector<c10::IValue>& inputs,
                         const ExportOptions& options);

/// lower.cpp: the ordered list of passes. Never folds a fake-quantise op. Throws UnsupportedOp /
/// std::runtime_error.
void lower(Program& program);
/// lower/quantized_tensors.cpp, a step of lower(): quantised tensors become float ones on the same
/// grid. False where there are none, or where a branch that record() decides is still there.
bool lower_quantized(Program& program);
/// record.cpp: interprets the graph once per run (not through the optimising executor), fills
/// program.types, folds what the shapes decide, and lowers again until nothing changes. With a
/// second size: refuses, naming the node, where the graph does not follow it, and compares the
/// graph's outputs with program.reference where the graph is not its code.
void record(Program& program);

}  // namespace qcdq
