// What both sources share: from a method's graph and its module to a Program without `self`, the
// names of weights, the example inputs with their dynamic axes, and the eval-mode guard.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "symbolic/program/program.h"

namespace qcdq {

/// Inlines calls, and replaces reads of the module's attributes by constants that share their
/// storage; `training` reads as false. The graph's first argument (self) is removed. Throws
/// std::runtime_error for a module that changes its own attributes.
void bind_module(const std::shared_ptr<torch::jit::Graph>& graph, const torch::jit::Module& module);

/// Dotted path of each parameter, buffer and tensor attribute by its data pointer.
std::unordered_map<const void*, std::string> parameter_paths(const torch::jit::Module& module);

/// Tensors of a forward's result in order: tuples and lists are flattened, None is left out.
std::vector<at::Tensor> flatten_result(const c10::IValue& result);

/// Sets each input's symbols and second example from options.dynamic_axes: a dynamic dimension of
/// size s gets s + 1 (s + 2 for the second symbol, ...), filled by repeating the example's slices,
/// so that indices stay valid.
void apply_dynamic_axes(std::vector<ProgramInput>& inputs,
                        const std::vector<DynamicAxis>& dynamic_axes);

/// Replaces graph input `index`, a tuple or list, by one input for each tensor in it, and appends
/// them to program.inputs, named NAME_0, NAME_1, ... Numbers, strings and None inside become
/// constants, which a note tells. Returns how many inputs there are now in the place of the one.
size_t expand_input(Program& program, size_t index, const c10::IValue& value,
                    const std::string& name);

/// `like` with its tensors, in the order of expand_input, replaced by those from `next` on.
c10::IValue with_tensors(const c10::IValue& like, const std::vector<c10::IValue>& tensors,
                         size_t& next);

/// Replaces graph input `index` by a constant.
void bind_input(torch::jit::Graph& graph, size_t index, const c10::IValue& value);

/// "3", "[1, 2]", "None": a value that is no tensor, for notes and messages.
std::string text_of(const c10::IValue& value);

/// An argument's name without the suffix that makes it unique in TorchScript: "x.1" -> "x".
std::string plain_name(const std::string& name);

}  // namespace qcdq
