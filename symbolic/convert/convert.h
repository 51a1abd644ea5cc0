// convert: torch::jit::Graph -> OnnxGraph by the registry of symbolic functions.
#pragma once

#include "symbolic/graph/emission_options.h"
#include "symbolic/graph/onnx_graph.h"
#include "symbolic/program/program.h"

namespace qcdq {

/// Converts every node of a lowered and recorded program. What can't be represented, and an error
/// that an op raises as it is evaluated, refuses that op; all refusals are thrown as one
/// UnsupportedOp. A std::logic_error of a symbolic function is a fault of that function: it ends
/// the conversion at once, as a std::runtime_error that names op and place.
OnnxGraph convert(Program& program, int64_t opset, const EmissionOptions& emission);

}  // namespace qcdq
