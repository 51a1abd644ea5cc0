// convert: torch::jit::Graph -> OnnxGraph by the registry of symbolic functions.
#pragma once

#include "symbolic/graph/emission_options.h"
#include "symbolic/graph/onnx_graph.h"
#include "symbolic/program/program.h"

namespace qcdq {

/// Converts every node of a lowered and recorded program. Collects all refusals and throws one
/// UnsupportedOp-carrying error that lists them (std::runtime_error with one line per refusal when
/// there are several).
OnnxGraph convert(Program& program, int64_t opset, const EmissionOptions& emission);

}  // namespace qcdq
