// A method of a TorchScript module as torch computes it: its graph, which a source takes over, and
// a run of it, which that source and verify compare with.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <memory>
#include <string>
#include <vector>

namespace qcdq {

/// A copy of the method's graph with its calls inlined. A 0-d constant that is added, subtracted,
/// multiplied by or divided by is a number in it, as in torch's executor: a trace holds `n + 1.5`
/// as a 0-d float64 tensor, which would decide the result's type.
std::shared_ptr<torch::jit::Graph> method_graph(const torch::jit::Module& module,
                                                const std::string& name);

/// Runs that graph without the optimising executor, whose first runs take seconds, and which may
/// fuse. The mode and gradients are the caller's (EvalMode).
class MethodRunner {
 public:
  MethodRunner(const torch::jit::Module& module, const std::string& name);
  c10::IValue operator()(const std::vector<c10::IValue>& arguments);

 private:
  torch::jit::Module module_;
  std::string name_;
  torch::jit::GraphExecutor executor_;
};

}  // namespace qcdq
