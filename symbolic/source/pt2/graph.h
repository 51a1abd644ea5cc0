// From a .pt2 file's JSON to a torch::jit::Graph of the same torch ops: from there on the way is
// TorchScript's. source/pt2/arguments.cpp makes the arguments of a node.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "qcdq/symbolic.h"
#include "symbolic/source/pt2/archive.h"
#include "symbolic/source/pt2/size_expression.h"

namespace qcdq {

/// One tensor that the program takes.
struct Pt2Input {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<SizeExpression> sizes;
  std::vector<int64_t> example_sizes;
};

struct Pt2Graph {
  /// Weights are constants that share the archive's tensors; graph->inputs() match `inputs`;
  /// outputs are tensors. The nodes carry lines and modules of the user's model. Writes in place
  /// are kept as they are.
  std::shared_ptr<torch::jit::Graph> graph;
  std::vector<Pt2Input> inputs;
  std::unordered_map<const void*, std::string> parameter_paths;  // by data pointer
  std::vector<std::string> notes;
};

/// Throws UnsupportedOp, naming it, for what has no form in TorchScript or in ONNX: cond, while and
/// scan, a write to a buffer; std::runtime_error for an op that is not registered.
Pt2Graph build_pt2_graph(const Pt2Archive& archive);

/// The values that a program's names stand for.
using Pt2Values = std::unordered_map<std::string, torch::jit::Value*>;

/// source/pt2/arguments.cpp: an argument as a graph value of the schema's type. `length` is the N
/// of int[N], for which one number stands for N. Throws UnsupportedOp, with `op` and the argument's
/// name, for a kind that TorchScript has not.
torch::jit::Value* pt2_argument(torch::jit::Graph& graph, const Pt2Values& values,
                                const nlohmann::json& argument, const c10::Argument& formal,
                                const std::string& op);
/// The same without a schema: numbers and names, for arithmetic on sizes.
torch::jit::Value* pt2_number(torch::jit::Graph& graph, const Pt2Values& values,
                              const nlohmann::json& argument, const std::string& op);
/// The value of a name; throws std::runtime_error where no node has made it.
torch::jit::Value* pt2_value(const Pt2Values& values, const std::string& name);
/// A float, which the file writes as a number, or as "NaN" and "Infinity".
double pt2_float(const nlohmann::json& content);

/// source/pt2/size_ops.cpp: a node on sizes (_operator.mul, torch.sym_max) as TorchScript's own op
/// on ints and floats; nothing where `target` is no such op.
torch::jit::Value* pt2_size_op(torch::jit::Graph& graph, const std::string& target,
                               const std::vector<torch::jit::Value*>& operands);

/// source/pt2/composites.cpp: torch's inner ops (convolution, _native_batch_norm_legit_no_training,
/// addmm of a transpose) become the ops that run_decompositions() took apart, where the results
/// that those have not are not used.
void compose_pt2_ops(torch::jit::Graph& graph);

}  // namespace qcdq
