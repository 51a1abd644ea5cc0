// The lowering passes that lower.cpp puts in order. Each returns true where it changed the graph,
// and none folds, merges or moves a fake-quantise op.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "symbolic/program/program.h"

namespace qcdq {

using GraphPtr = std::shared_ptr<torch::jit::Graph>;

/// Some op in the graph writes to one of its inputs.
bool has_mutation(torch::jit::Block* block);

/// A cast of a value that is known to be None to a type that holds no None. Never folded: the None
/// would reach calls that take none, for which libtorch has no schema (its alias analysis asserts).
bool casts_none(const torch::jit::Node& node);

/// fold_constants.cpp: evaluates nodes whose inputs are all constants, inlines the taken branch of
/// an If with a constant condition, drops loops that never run. Only deterministic, non-mutating
/// ops of aten and prim; never a quantise, dequantise or fake-quantise op; tensors only up to
/// 1 MiB, or views, so that no derived weight takes memory. `paths` (names by data pointer) gets an
/// entry for each folded tensor that comes from a named one.
bool fold_constants(const GraphPtr& graph, std::unordered_map<const void*, std::string>& paths);

/// is_autocast_enabled -> true (nn.MultiheadAttention then takes the path made of plain ops),
/// is_grad_enabled -> false.
bool answer_mode_queries(torch::jit::Block* block);
/// An If one of whose branches raises becomes the other branch (upstream's EliminateExceptions does
/// not terminate where two Ifs share a condition).
bool drop_raises(torch::jit::Block* block);
/// A cast of None to another type (the branches of a scripted interpolate's other modes) raises
/// when it is reached: it becomes a RaiseException, so that drop_raises decides the branch.
bool raise_casts_of_none(torch::jit::Block* block);
/// Dropout with train=False, or p=0, becomes its input.
bool remove_dropout(torch::jit::Block* block);
/// warnings and prints.
bool remove_messages(torch::jit::Block* block);
/// Casts to a static type that already holds, Int/Float/Bool of NumToTensor, and `x is x`.
bool remove_casts(torch::jit::Block* block);
/// Ops that write to a constant, or to a view of one: a weight that the model changes.
std::unordered_set<const torch::jit::Node*> writes_to_constants(const GraphPtr& graph);
/// A list that is made and appended or written to in one block becomes one ListConstruct per state,
/// also where it is read in between (upstream's RemoveListMutation gives up there).
bool resolve_appends(torch::jit::Block* block);
/// `[value] * count` with a known count becomes one ListConstruct, so that writes to it resolve.
bool expand_repeated_lists(torch::jit::Block* block);
/// lower/decide_aliases.cpp: ops that share memory with their input or copy it, as its strides have
/// it (reshape, contiguous, to), become ops that do the one or the other; a run on the examples
/// tells. Only where a write asks for it. Throws UnsupportedOp for writes whose result torch leaves
/// open.
bool decide_aliases(Program& program);
/// lower/mutation.cpp: writes to tensors and to views of them become functional, and later reads
/// get the newest value. Those that depend on a branch or loop stay until that is gone.
bool functionalize_writes(const GraphPtr& graph);
/// Throws UnsupportedOp for the writes that functionalize_writes() leaves.
void refuse_writes(const GraphPtr& graph);
/// lower/dicts.cpp: a dict that is made, set and read under constant keys in one block becomes its
/// values.
bool resolve_dicts(torch::jit::Block* block);
/// lower/quantized_tensors.cpp: quantised tensors become float ones on the same grid. False where
/// there are none, or where a branch that only recorded shapes can decide is still there.
bool lower_quantized(Program& program);
/// lower/quantized_tensors.cpp: torch.ao's fused observer and fake quantiser, its observer off,
/// becomes the fake quantiser. Throws UnsupportedOp where the observer is on.
bool settle_observers(torch::jit::Block* block);

}  // namespace qcdq
