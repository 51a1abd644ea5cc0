// The table of what ONNX Runtime (ORT) runs in int8, applied to a graph. `qcdq inspect` prints what
// it says.
#pragma once

#include <vector>

#include "qcdq/inspect.h"
#include "symbolic/graph/onnx_graph.h"

namespace qcdq {

/// A line for each Conv, Gemm, MatMul, Add, pool, ...: will ORT run the node in int8? The reason is
/// the first one why not, and what to change.
std::vector<CoverageLine> int8_coverage(const OnnxGraph& graph);

}  // namespace qcdq
