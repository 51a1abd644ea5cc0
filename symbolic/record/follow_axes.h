// Do the graph's nodes follow its dynamic axes? Two runs at two sizes show where one does not, and
// a trace or a translation is compared with the source's own forward at the second size.
#pragma once

#include <string>
#include <vector>

#include "symbolic/program/interpreter.h"
#include "symbolic/program/program.h"

namespace qcdq {

/// Sizes of a dynamic dimension in the two runs.
struct Symbol {
  std::string name;
  int64_t first;
  int64_t second;
};

/// The dynamic dimensions of the program's inputs, each once.
std::vector<Symbol> symbols_of(const Program& program);
/// "N=3, T=8": the second sizes.
std::string sizes_text(const std::vector<Symbol>& symbols);
/// "aten::view at layer1, model.py:12".
std::string describe_node(const torch::jit::Node& node);

class AxisProof {
 public:
  /// `runs` holds the first run, and the second as far as it got.
  AxisProof(Program& program, const std::vector<Symbol>& symbols, const std::vector<Run>& runs)
      : program_(program), symbols_(symbols), runs_(runs) {}

  /// The second run failed: names the node that has kept the example's size, else the one that
  /// failed.
  [[noreturn]] void refuse_second_size(const RunFailure& failure) const;
  /// Compares the outputs of the second run with the source's own, on the second examples, where
  /// the graph is not its code; else notes where a size may have been baked in.
  void prove(const std::vector<c10::IValue>& second_examples) const;

 private:
  const torch::jit::Node* baked_node(torch::jit::Block* block) const;
  const Observed* seen(size_t run, const torch::jit::Value* value) const;
  bool has_symbol(const torch::jit::Value* value, const Symbol& symbol) const;
  [[noreturn]] void refuse_baked(const torch::jit::Node& node, const std::string& reason) const;
  void note_baked(const torch::jit::Node& node) const;
  void compare_with_reference(const std::vector<c10::IValue>& second_examples) const;
  std::string compare(const std::string& name, const at::Tensor& ours,
                      const at::Tensor& expected) const;

  Program& program_;
  const std::vector<Symbol>& symbols_;
  const std::vector<Run>& runs_;
};

}  // namespace qcdq
