// Numbers of a converted program: ONNX Runtime against torch.
#pragma once

#include "symbolic/graph/onnx_graph.h"
#include "symbolic/program/program.h"

namespace qcdq::testing {

/// ORT is not needed to build qcdq: without it no numbers are compared, and a line says so.
bool have_ort();

/// Runs the graph in ORT on the program's examples and expects the shapes, types and values of its
/// reference. False where ORT has no kernel for a type that ONNX allows: nothing is compared then.
bool expect_ort_agrees(const OnnxGraph& graph, const Program& program);

}  // namespace qcdq::testing
