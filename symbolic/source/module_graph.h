// What both sources share: from a method's graph and its module to a Program without `self`, the
// names of weights, and the example inputs with their dynamic axes.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "symbolic/source/source.h"

namespace qcdq {

/// Inlines calls, and replaces reads of the module's attributes by constants that share their
/// storage; `training` reads as false. The graph's first argument (self) is removed. Throws
/// std::runtime_error for a module that changes its own attributes.
void bind_module(const std::shared_ptr<torch::jit::Graph>& graph, const torch::jit::Module& module);

/// Dotted path of each parameter, buffer and tensor attribute by its data pointer.
std::unordered_map<const void*, std::string> parameter_paths(const torch::jit::Module& module);

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

/// Replaces graph input `index` by a constant.
void bind_input(torch::jit::Graph& graph, size_t index, const c10::IValue& value);

}  // namespace qcdq
