// The order of the lowering passes; see lower.h.
#include "symbolic/lower/lower.h"

#include <ATen/core/jit_type.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/loop_unrolling.h>
#include <torch/csrc/jit/passes/lower_tuples.h>
#include <torch/csrc/jit/passes/normalize_ops.h>
#include <torch/csrc/jit/passes/peephole.h>
#include <torch/csrc/jit/passes/peephole_list_idioms.h>
#include <torch/csrc/jit/passes/remove_mutation.h>
#include <torch/csrc/jit/passes/shape_analysis.h>

#include <algorithm>
#include <span>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "symbolic/graph/message_text.h"
#include "symbolic/lower/passes.h"
#include "symbolic/program/run_node.h"

namespace qcdq {

using torch::jit::Block;
using torch::jit::Node;
using JitValue = torch::jit::Value;
namespace prim = torch::jit::prim;

namespace {

// A model nests lists, branches and loops a few levels deep; each round settles one level.
constexpr int kMostRounds = 64;

bool holds_kind(Block* block, torch::jit::Symbol kind) {
  for (Node* node : block->nodes()) {
    if (node->kind() == kind) return true;
    for (Block* inner : node->blocks()) {
      if (holds_kind(inner, kind)) return true;
    }
  }
  return false;
}

using BlockPass = bool (*)(Block*);
template <BlockPass pass>
bool on_block(Program& program) {
  return pass(program.graph->block());
}
template <BlockPass pass>
bool on_writes(Program& program) {
  return has_mutation(program.graph->block()) && pass(program.graph->block());
}

constexpr LoweringPass kPasses[] = {
    {"settle observers", on_block<settle_observers>},
    {"answer mode queries", on_block<answer_mode_queries>},
    {"raise casts of None", on_block<raise_casts_of_none>},
    {"drop raises", on_block<drop_raises>},
    {"remove dropout", on_block<remove_dropout>},
    {"remove messages", on_block<remove_messages>},
    // LowerSimpleTuples and EliminateDeadCode don't tell whether they changed the graph: what they
    // leave, another pass of the same round uses.
    {"unpack tuples",
     [](Program& program) {
       torch::jit::LowerSimpleTuples(program.graph);
       return false;
     }},
    {"fold constants",
     [](Program& program) { return fold_constants(program.graph, program.parameter_paths); }},
    {"resolve dicts", on_block<resolve_dicts>},
    {"expand repeated lists", on_writes<expand_repeated_lists>},
    {"remove writes to lists",
     [](Program& program) {
       return has_mutation(program.graph->block()) && torch::jit::RemoveListMutation(program.graph);
     }},
    {"resolve appends", on_writes<resolve_appends>},
    {"decide aliases",
     [](Program& program) {
       return has_mutation(program.graph->block()) && decide_aliases(program);
     }},
    {"make writes functional",
     [](Program& program) {
       return has_mutation(program.graph->block()) && functionalize_writes(program.graph);
     }},
    {"simplify lists",
     [](Program& program) {
       return torch::jit::PeepholeOptimizeListIdioms(program.graph, /*refine_list_len=*/true);
     }},
    // Without its shape peepholes: those believe the sizes on the values, which a trace has baked.
    {"simplify ops",
     [](Program& program) {
       return torch::jit::PeepholeOptimize(program.graph, /*disable_shape_peepholes=*/true);
     }},
    {"remove casts", on_block<remove_casts>},
    {"unroll loops",
     [](Program& program) {
       return holds_kind(program.graph->block(), prim::Loop) &&
              torch::jit::UnrollConstantLoops(program.graph);
     }},
    {"eliminate dead code",
     [](Program& program) {
       torch::jit::EliminateDeadCode(program.graph);
       return false;
     }},
};

void refuse_training_dropout(Block* block) {
  for (Node* node : block->nodes()) {
    for (Block* inner : node->blocks()) refuse_training_dropout(inner);
    if (!node->kind().is_aten()) continue;
    const std::string name = node->kind().toUnqualString();
    if (name.find("dropout") == std::string::npos || node->inputs().size() != 3) continue;
    const auto train = torch::jit::toIValue(node->input(2));
    if (!train || !train->isBool() || !train->toBool()) continue;
    refuse_node(*node, "dropout in training mode is random",
                "trace the model in eval mode, or pass training=self.training", "train", "True");
  }
}

void refuse_state(const Program& program) {
  if (!has_mutation(program.graph->block())) return;
  for (const Node* node : writes_to_constants(program.graph)) {
    const auto tensor = torch::jit::toIValue(node->input(0));
    std::string name = "a tensor of its own";
    if (tensor && tensor->isTensor()) {
      const auto path = program.parameter_paths.find(tensor->toTensor().const_data_ptr());
      if (path != program.parameter_paths.end()) name = "'" + path->second + "'";
    }
    const bool observer = name.find("activation_post_process") != std::string::npos ||
                          name.find("fake_quant") != std::string::npos;
    refuse_node(*node, "the model changes " + name + " as it runs",
                observer ? "call model.apply(torch.ao.quantization."
                           "disable_observer) before saving the model"
                         : "make the state an input and an output of the model");
  }
}

/// Names outputs by dict keys where every output has one, and no two the same.
void name_by_keys(Program& program, const std::unordered_map<const JitValue*, std::string>& keys) {
  if (!program.output_names.empty() || keys.empty()) return;
  std::vector<std::string> names;
  for (const JitValue* output : program.graph->outputs()) {
    const auto key = keys.find(output);
    if (key == keys.end() || key->second.empty() ||
        std::find(names.begin(), names.end(), key->second) != names.end()) {
      return;
    }
    names.push_back(key->second);
  }
  program.output_names = std::move(names);
}

/// Replaces outputs that are tuples or lists by their elements and drops those that are None.
/// Elements of a dict with constant keys are named by them.
void flatten_outputs(Program& program) {
  auto& graph = *program.graph;
  std::unordered_map<const JitValue*, std::string> keys;
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < graph.outputs().size() && !changed; ++i) {
      JitValue* output = graph.outputs()[i];
      std::vector<JitValue*> elements;
      if (output->mustBeNone()) {
        program.notes.push_back("an output of the model is None and left out");
      } else if (output->node()->kind() == prim::TupleConstruct ||
                 output->node()->kind() == prim::ListConstruct) {
        elements = output->node()->inputs().vec();
      } else if (output->node()->kind() == prim::DictConstruct) {
        const auto inputs = output->node()->inputs();
        for (size_t j = 0; j + 1 < inputs.size(); j += 2) {
          elements.push_back(inputs[j + 1]);
          const auto key = torch::jit::toIValue(inputs[j]);
          if (key && key->isString()) keys[inputs[j + 1]] = key->toStringRef();
        }
      } else {
        continue;
      }
      std::vector<JitValue*> outputs = graph.outputs().vec();
      outputs.erase(outputs.begin() + static_cast<std::ptrdiff_t>(i));
      outputs.insert(outputs.begin() + static_cast<std::ptrdiff_t>(i), elements.begin(),
                     elements.end());
      while (!graph.outputs().empty()) graph.eraseOutput(graph.outputs().size() - 1);
      for (JitValue* value : outputs) graph.registerOutput(value);
      changed = true;
    }
  }
  name_by_keys(program, keys);
}

bool all_tensors(const torch::jit::Graph& graph) {
  for (const JitValue* output : graph.outputs()) {
    if (output->type()->kind() != c10::TypeKind::TensorType) return false;
  }
  return true;
}

void name_outputs(Program& program) {
  const size_t count = program.graph->outputs().size();
  if (!all_tensors(*program.graph)) return;  // record() may resolve them, or refuses
  if (program.output_names.empty()) {
    const auto taken = [&](const std::string& name) {
      for (const ProgramInput& input : program.inputs) {
        if (input.name == name) return true;
      }
      return false;
    };
    for (size_t i = 0; i < count; ++i) {
      std::string name = count == 1 && !taken("output") ? "output" : "output_" + std::to_string(i);
      while (taken(name)) name += "_";
      program.output_names.push_back(std::move(name));
    }
  }
  if (program.output_names.size() != count) {
    throw std::runtime_error("output names: " + std::to_string(program.output_names.size()) +
                             " given, the model has " + std::to_string(count) + " outputs");
  }
}

}  // namespace

std::span<const LoweringPass> lowering_passes() { return kPasses; }

int run_until_settled(Program& program, std::span<const LoweringPass> passes, ProgramDump* dump,
                      const std::string& phase, int first_round) {
  std::vector<std::string> changing;
  for (int round = first_round; round < first_round + kMostRounds; ++round) {
    changing.clear();
    for (const LoweringPass& pass : passes) {
      const bool changed = run_pass(dump, phase + "." + std::to_string(round), pass.name,
                                    [&] { return pass.run(program); });
      if (changed) changing.emplace_back(pass.name);
    }
    if (changing.empty()) return round + 1;
  }
  throw std::runtime_error("the graph does not settle: after " + std::to_string(kMostRounds) +
                           " rounds, lowering still changes it (" + join_names(changing) + ")");
}

void lower(Program& program, ProgramDump* dump, const std::string& phase) {
  const auto once = [&](const char* name, auto pass) { return run_pass(dump, phase, name, pass); };
  once("erase shapes", [&] { torch::jit::EraseShapeInformation(program.graph); });
  once("normalize op names", [&] { torch::jit::NormalizeOps(program.graph); });
  const int rounds = run_until_settled(program, lowering_passes(), dump, phase);
  if (once("quantised tensors to float", [&] { return lower_quantized(program); })) {
    run_until_settled(program, lowering_passes(), dump, phase, rounds);
  }
  once("refuse random dropout", [&] { refuse_training_dropout(program.graph->block()); });
  once("refuse state", [&] { refuse_state(program); });
  once("flatten outputs", [&] { flatten_outputs(program); });
  once("eliminate dead code", [&] { torch::jit::EliminateDeadCode(program.graph); });
  once("name outputs", [&] { name_outputs(program); });
}

void check_lowered(const Program& program) { refuse_writes(program.graph); }

}  // namespace qcdq
