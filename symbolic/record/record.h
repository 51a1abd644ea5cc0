// The recorder: runs the lowered graph once per example, gives each tensor value its type, and
// folds what the shapes decide. symbolic/settle.cpp calls it and lower() in turn.
#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "symbolic/program/interpreter.h"
#include "symbolic/program/program_dump.h"
#include "symbolic/record/follow_axes.h"

namespace qcdq {

class Recorder {
 public:
  explicit Recorder(Program& program, ProgramDump* dump = nullptr)
      : program_(program), symbols_(symbols_of(program)), dump_(dump) {}

  /// Runs the graph on the examples, not through the optimising executor, and fills program.types.
  /// Refuses, naming the node, where the graph fails at the second size.
  void run();
  /// Folds what the last run decides: shape queries, branches and loops on shapes, strided views.
  /// Returns the names of what was folded ("shape queries"); empty where there was nothing.
  std::vector<std::string> fold();
  /// After lower() has changed the graph: types its values by the last run, and runs again where
  /// some are new.
  void refresh();
  /// After the last fold: refuses outputs that are no tensors; with a second size notes what was
  /// fixed, and proves that the graph follows its axes.
  void finish();

 private:
  void run_examples();
  std::string phase(const char* name) const { return name + std::to_string(round_); }
  std::vector<c10::IValue> examples(size_t index) const;
  bool assign_types();
  void assign_block(torch::jit::Block* block);
  void assign(const torch::jit::Value* value);
  void check_outputs() const;

  Program& program_;
  std::vector<Symbol> symbols_;
  ProgramDump* dump_ = nullptr;
  int round_ = 1;  // of folding, as a dump counts them
  std::vector<Run> runs_;
  bool fresh_ = false;                            // the runs are of the graph as it is now
  int fixed_ = 0;                                 // branches and loops
  std::unordered_map<size_t, TensorType> known_;  // by Value::unique()
  std::unordered_set<size_t> missing_;            // tensor values without a type
  std::unordered_set<size_t> unreached_;          // those in branches that no run took
};

}  // namespace qcdq
