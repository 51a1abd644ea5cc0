// The sources: a model and its example inputs become a Program. One function a kind of model.
#pragma once

#include <memory>
#include <vector>

#include "qcdq/export.h"
#include "symbolic/program/program.h"

namespace qcdq {

/// load_torchscript.cpp: the method of a loaded module with example inputs (defaults filled
/// in as constants). Applies options.input_names/output_names/dynamic_axes (a second size per
/// dynamic axis: a different size, the same one for the same symbol).
Program program_from_torchscript(const torch::jit::Module& module,
                                 const std::vector<c10::IValue>& inputs,
                                 const ExportOptions& options);
/// trace_module.cpp: traces a C++ module's forward.
Program program_from_module(const std::shared_ptr<torch::nn::Module>& module,
                            const BoxedForward& forward, const std::vector<c10::IValue>& inputs,
                            const ExportOptions& options);

/// pt2/load_pt2.cpp: a program of torch.export; `inputs` empty = its own examples. Its symbols
/// are the dynamic axes; options.dynamic_axes gives them names.
Program program_from_pt2(const ExportedProgram& exported, const std::vector<c10::IValue>& inputs,
                         const ExportOptions& options);

}  // namespace qcdq
