// What the recorded runs decide: size queries, branches and loops whose conditions don't depend on
// the inputs' data, and as_strided. record.cpp calls these after its runs.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <string>
#include <unordered_map>
#include <vector>

#include "qcdq/symbolic.h"
#include "symbolic/program/interpreter.h"

namespace qcdq {

/// Replaces size, dim, dtype, device and the like by constants where they are static. Returns true
/// where the graph changed.
bool fold_shape_queries(torch::jit::Graph& graph,
                        const std::unordered_map<const torch::jit::Value*, TensorType>& types);

/// Fixes each If to the branch taken, and each loop to its trip count, where all runs agree and
/// the condition is not derived from the data of an input. Those that depend on the data stay, and
/// convert refuses them by name. Returns how many were fixed.
int fix_control_flow(torch::jit::Graph& graph, const std::vector<Run>& runs,
                     const std::unordered_map<const torch::jit::Value*, TensorType>& types);

/// Drops each as_strided that gave its input as it is in every run. The others stay, and convert
/// refuses them by name. Returns true where the graph changed.
bool drop_strided_identities(torch::jit::Graph& graph, const std::vector<Run>& runs);

/// The tensors whose shape depends on the inputs' data (x[x > 0]): what one run
/// saw of it says nothing about the next.
std::vector<const torch::jit::Value*> shaped_by_data(
    torch::jit::Graph& graph,
    const std::unordered_map<const torch::jit::Value*, TensorType>& types);

}  // namespace qcdq
